-- The proof: it fails unless every message has the right persona. It changes nothing.
-- Run it with -f, because psql looks for the included script beside this file.
--     psql "$URL" -f sql/steps/6-verify.sql
\set ON_ERROR_STOP on
\set only verify
\ir ../migrate-persona-all-in-one.sql
