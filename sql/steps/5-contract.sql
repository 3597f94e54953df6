-- Step 5, contract: the proof, then the old places of the settings and user_id go.
-- The steps run in the order of their numbers; each may be run again. The script that this one
-- includes says what may be chosen. Run it with -f: psql looks for the included file beside this one.
--     psql "$URL" -f sql/steps/5-contract.sql -v backup_confirmed='which one'
\set ON_ERROR_STOP on
\set only contract
\ir ../migrate-persona-all-in-one.sql
