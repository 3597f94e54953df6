-- The sessions that hold or await a lock on the history, oldest transaction first. A row without a
-- pid is a prepared transaction. Reads only.
\set ON_ERROR_STOP on
SELECT l.pid, l.mode, l.granted, a.state, a.application_name,
       clock_timestamp() - a.xact_start AS open_for,
       CASE WHEN l.pid IS NULL THEN 'see pg_prepared_xacts' ELSE left(a.query, 80) END AS query
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.relation = to_regclass('conversation_history')
  AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY a.xact_start;
