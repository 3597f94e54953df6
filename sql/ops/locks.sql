-- Who holds or awaits a lock on the history, oldest transaction first. Reads only.
\set ON_ERROR_STOP on
SELECT a.pid, l.mode, l.granted, a.state, a.application_name,
       clock_timestamp() - a.xact_start AS open_for, left(a.query, 80) AS query
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.relation = to_regclass('conversation_history') AND a.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY a.xact_start;
