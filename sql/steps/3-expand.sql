-- Step 3, expand: adds the column persona_id, and the triggers that keep it in sync with user_id.
-- Run the steps in the order of their numbers; each may be run again. The included script says
-- which options there are. Run it with -f, because psql looks for that script beside this file.
--     psql "$URL" -f sql/steps/3-expand.sql -v unresolved=create
\set ON_ERROR_STOP on
\set only expand
\ir ../migrate-persona-all-in-one.sql
