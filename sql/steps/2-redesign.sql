-- Step 2, redesign: creates the new tables of the settings, in sync with the old places.
-- Run the steps in the order of their numbers; each may be run again. The included script says
-- which options there are. Run it with -f, because psql looks for that script beside this file.
--     psql "$URL" -f sql/steps/2-redesign.sql -v unresolved=create
\set ON_ERROR_STOP on
\set only redesign
\ir ../migrate-persona-all-in-one.sql
