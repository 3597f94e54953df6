-- The way back before contract: takes expand and backfill back. Messages keep their users; going
-- forward again gives each the persona that it had. What the redesign of the settings made stays, in
-- step with the old places. From contract on, and for the redesign: `memsync migrate rollback`.
-- Run it with -f: psql looks for the included file beside this one.
--     psql "$URL" -f sql/steps/back-before-contract.sql
\set ON_ERROR_STOP on
\set only back
\ir ../migrate-persona-all-in-one.sql
