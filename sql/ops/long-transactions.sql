-- Transactions that have been open for more than a minute, oldest first, and prepared ones, which
-- no session will end. Index builds wait for them, and so may requests for locks. Reads only.
-- Only members of pg_read_all_stats see the age of other roles' sessions.
\set ON_ERROR_STOP on
SELECT pid, usename, application_name, state, clock_timestamp() - xact_start AS open_for,
       left(query, 80) AS query, format('SELECT pg_terminate_backend(%s);', pid) AS ends_it
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND xact_start < clock_timestamp() - interval '1 minute'
ORDER BY xact_start;
SELECT gid, owner, clock_timestamp() - prepared AS open_for,
       format('ROLLBACK PREPARED %L;', gid) AS ends_it
FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared;
