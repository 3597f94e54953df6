-- Step 3, expand: the column persona_id, and the triggers that keep it in step with user_id.
-- The steps run in the order of their numbers; each may be run again. The script that this one
-- includes says what may be chosen. Run it with -f: psql looks for the included file beside this one.
--     psql "$URL" -f sql/steps/3-expand.sql
\set ON_ERROR_STOP on
\set only expand
\ir ../migrate-persona-all-in-one.sql
