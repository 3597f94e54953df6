-- The session itself: its locks, its settings and its process.

-- name: try_lock
-- Takes a session-level advisory lock if it is free; never waits.
SELECT pg_try_advisory_lock(%(key)s) AS taken;

-- name: unlock
-- Releases an advisory lock.
SELECT pg_advisory_unlock(%(key)s);

-- name: no_timeouts
-- Lifts the timeouts that a role or database sets, because long steps are long on purpose.
-- The names are looked up in pg_settings, because not every version has all of them.
SELECT set_config(name, '0', false) FROM pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout',
               'idle_in_transaction_session_timeout', 'idle_session_timeout');

-- name: heavy_work
-- Prepares a session for heavy work. Indexes are sorted in 256 MiB, because each parallel worker
-- needs 32 MiB. Writes go to disk early, because a checkpoint that syncs much at once makes clients
-- wait for their commits. Neither setting is lowered; not every system has backend_flush_after.
SELECT set_config('maintenance_work_mem',
                  greatest(pg_size_bytes(current_setting('maintenance_work_mem')) / 1024,
                           262144)::text || 'kB', false) AS sorts,
       (SELECT set_config(name, '256kB', false) FROM pg_settings
        WHERE name = 'backend_flush_after' AND setting = '0' AND max_val::int > 0) AS writes;

-- name: deadlock_patience
-- Half of deadlock_timeout, in ms. A wait for a lock of at most this length ends before the server
-- looks for deadlocks; a longer one could make a client the victim.
SELECT greatest(setting::int / 2, 1) AS half_ms FROM pg_settings WHERE name = 'deadlock_timeout';

-- name: serving_pid
-- The process that serves this session now.
SELECT pg_backend_pid() AS pid;

-- name: lock_holders
-- The sessions that hold an advisory lock of memsync, for the error of one that does not get it.
SELECT a.pid, coalesce(to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS "UTC"'), '?') AS since
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND (l.classid::bigint << 32) | l.objid::bigint = %(key)s
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database());
