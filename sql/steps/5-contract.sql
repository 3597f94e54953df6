-- Step 5, contract: proves the fill, then drops the old places of the settings and user_id.
-- Run the steps in the order of their numbers; each may be run again. The included script says
-- which options there are. Run it with -f, because psql looks for that script beside this file.
--     psql "$URL" -f sql/steps/5-contract.sql -v backup_confirmed='which one'
\set ON_ERROR_STOP on
\set only contract
\ir ../migrate-persona-all-in-one.sql
