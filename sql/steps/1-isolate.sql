-- Step 1, isolate: memsync's own tables, and the index that serves reading by user.
-- The steps run in the order of their numbers; each may be run again. The script that this one
-- includes says what may be chosen. Run it with -f: psql looks for the included file beside this one.
--     psql "$URL" -f sql/steps/1-isolate.sql
\set ON_ERROR_STOP on
\set only isolate
\ir ../migrate-persona-all-in-one.sql
