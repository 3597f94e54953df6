-- Step 2, redesign: the new tables of the settings, beside the old places and in step with them.
-- The steps run in the order of their numbers; each may be run again. The script that this one
-- includes says what may be chosen. Run it with -f: psql looks for the included file beside this one.
--     psql "$URL" -f sql/steps/2-redesign.sql
\set ON_ERROR_STOP on
\set only redesign
\ir ../migrate-persona-all-in-one.sql
