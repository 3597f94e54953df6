-- Step 4, backfill: fills persona_id of every message, then builds its indexes and foreign key.
-- Run the steps in the order of their numbers; each may be run again. The included script says
-- which options there are. Run it with -f, because psql looks for that script beside this file.
--     psql "$URL" -f sql/steps/4-backfill.sql -v unresolved=create
\set ON_ERROR_STOP on
\set only backfill
\ir ../migrate-persona-all-in-one.sql
