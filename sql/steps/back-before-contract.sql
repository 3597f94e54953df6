-- The rollback before contract: takes backfill and expand back. Messages keep their users; going
-- forward again gives each the persona that it had. The new tables of the settings stay, in sync
-- with the old places. To take back contract or the redesign, use `memsync migrate rollback`.
-- Run it with -f, because psql looks for the included script beside this file.
--     psql "$URL" -f sql/steps/back-before-contract.sql
\set ON_ERROR_STOP on
\set only back
\ir ../migrate-persona-all-in-one.sql
