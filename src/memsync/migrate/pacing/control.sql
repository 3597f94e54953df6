-- Requests to a run, and the load that its work puts on the server.

-- name: open_control
-- Makes the one row of requests this session's own, because requests to an earlier run are void.
INSERT INTO memsync.control (pid, wanted) VALUES (pg_backend_pid(), 'run')
ON CONFLICT (singleton) DO UPDATE
SET pid = excluded.pid, wanted = 'run', who = session_user, asked_at = clock_timestamp(),
    heard_at = NULL;

-- name: wanted
-- The request to this session's run: what, by which role and when.
SELECT wanted, who, to_char(asked_at, 'HH24:MI:SS "UTC"') AS asked_at FROM memsync.control
WHERE pid = pg_backend_pid();

-- name: note_heard
-- Notes that the run acts on the request.
UPDATE memsync.control SET heard_at = clock_timestamp()
WHERE pid = pg_backend_pid() AND wanted = %(wanted)s AND heard_at IS NULL;

-- name: ask_run
-- Writes a request to the run that holds the lock; no row where none reads requests, or not yet.
UPDATE memsync.control c
SET wanted = %(wanted)s, who = session_user, asked_at = clock_timestamp(), heard_at = NULL
WHERE c.pid = ANY(%(pids)s::int[])
RETURNING c.pid;

-- name: control
-- The request to the run of one of these sessions, and whether it acts on it.
SELECT pid, wanted, who, asked_at, heard_at IS NOT NULL AS heard FROM memsync.control
WHERE pid = ANY(%(pids)s::int[]);

-- name: pressure
-- The load on the server while a fill runs: bytes of WAL written so far; the longest replay lag of
-- a standby, and the position of the one furthest behind; the sessions that have waited too long
-- for a lock on the table.
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS written,
       (SELECT pg_wal_lsn_diff(min(replay_lsn), '0/0')::bigint
        FROM pg_stat_replication) AS replayed,
       (SELECT coalesce(max(extract(epoch FROM replay_lag)) * 1000, 0)::float
        FROM pg_stat_replication) AS lag_ms,
       (SELECT coalesce(array_agg(DISTINCT pid), '{}') FROM pg_locks
        WHERE NOT granted AND pid <> pg_backend_pid() AND relation = to_regclass(%(relation)s)
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND waitstart < clock_timestamp() - make_interval(secs => %(longest_s)s)) AS waiting;

-- name: waiting_for_us
-- Sessions that wait for a lock that this session holds. One is enough, so at most 20 are checked.
SELECT pid FROM (SELECT DISTINCT pid FROM pg_locks WHERE NOT granted LIMIT 20) w
WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid));

-- name: sees_all_sessions
-- Whether this role sees what other roles' sessions and the standbys do.
SELECT pg_has_role('pg_read_all_stats', 'USAGE') AS yes;

-- name: synchronous_standbys
-- The standbys for which commits wait, as the server's setting names them.
SELECT current_setting('synchronous_standby_names') AS names;

-- name: waits_for_standby
-- Whether a commit of this session waits for a synchronous standby.
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %(pid)s AND wait_event = 'SyncRep') AS yes,
       current_setting('synchronous_standby_names') AS names;
