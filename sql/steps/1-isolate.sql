-- Step 1, isolate: creates memsync's own tables, and the index for reading by user.
-- Run the steps in the order of their numbers; each may be run again. The included script says
-- which options there are. Run it with -f, because psql looks for that script beside this file.
--     psql "$URL" -f sql/steps/1-isolate.sql -v unresolved=create
\set ON_ERROR_STOP on
\set only isolate
\ir ../migrate-persona-all-in-one.sql
