-- The session itself: its locks, its settings and its process.

-- name: try_lock
-- Takes a session-level advisory lock if it is free; never waits.
SELECT pg_try_advisory_lock(%(key)s) AS taken;

-- name: unlock
-- Releases an advisory lock.
SELECT pg_advisory_unlock(%(key)s);

-- fragment: pinned_settings
-- The settings that a role, a database or the environment may set and that change what memsync's
-- statements mean or return, what they make, or how long they may take.
('TimeZone', 'UTC'), ('timezone_abbreviations', 'Default'), ('DateStyle', 'ISO, MDY'),
('IntervalStyle', 'postgres'), ('bytea_output', 'hex'), ('extra_float_digits', '1'),
('client_encoding', 'UTF8'), ('standard_conforming_strings', 'on'), ('array_nulls', 'on'),
('transform_null_equals', 'off'), ('quote_all_identifiers', 'off'), ('lc_monetary', 'C'),
('lc_numeric', 'C'), ('lc_time', 'C'), ('gin_fuzzy_search_limit', '0'),
('restrict_nonsystem_relation_kind', ''), ('stats_fetch_consistency', 'cache'),
('default_transaction_isolation', 'read committed'), ('default_transaction_deferrable', 'off'),
('session_replication_role', 'origin'), ('check_function_bodies', 'on'),
('plpgsql.extra_errors', 'none'), ('plpgsql.extra_warnings', 'none'),
('client_min_messages', 'notice'), ('default_tablespace', ''), ('temp_tablespaces', ''),
('default_table_access_method', 'heap'), ('lock_timeout', '0'), ('transaction_timeout', '0'),
('idle_session_timeout', '0')

-- name: pin_settings
-- Pins the settings, for the session or for the transaction that is open. A setting that another
-- version of the server does not have is passed over, and one that is null here. By the keepalives
-- the server notices in 90 s that a client's host is gone, and frees its locks; by a system's
-- defaults that takes two hours. On a socket of Unix they do nothing.
SELECT set_config(name, value, %(local)s) FROM (VALUES {pinned_settings},
    ('statement_timeout', %(statement_timeout)s::text), ('row_security', %(row_security)s::text),
    ('idle_in_transaction_session_timeout', %(idle_in_transaction)s::text),
    ('tcp_keepalives_idle', '60'), ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3'),
    ('search_path', %(search_path)s::text)) AS pinned(name, value)
WHERE current_setting(name, true) <> value;

-- name: durable_commits
-- Lets commits wait until this server has them on disk, where they wait for nothing. A standby is
-- waited for only where the operator says so.
SELECT set_config('synchronous_commit', 'local', %(local)s)
WHERE current_setting('synchronous_commit') = 'off';

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

-- name: own_snapshot
-- The id of what this transaction sees, by which other sessions can see the same.
SELECT pg_export_snapshot() AS id;

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
