-- Step 4, backfill: persona_id of every message, then its indexes and its foreign key.
-- The steps run in the order of their numbers; each may be run again. The script that this one
-- includes says what may be chosen. Run it with -f: psql looks for the included file beside this one.
--     psql "$URL" -f sql/steps/4-backfill.sql -v unresolved=create
\set ON_ERROR_STOP on
\set only backfill
\ir ../migrate-persona-all-in-one.sql
