-- The questions of the gates, before contract drops user_id.

-- name: last_user_write
-- When a client last named user_id in an INSERT (`seen`), else since when this is watched.
SELECT to_char(to_timestamp(last_value), 'YYYY-MM-DD HH24:MI:SS "UTC"') AS moment,
       is_called AS seen,
       extract(epoch FROM clock_timestamp())::float - last_value AS ago_s
FROM memsync.user_id_written_at;

-- name: user_id_sessions
-- Clients whose last statement, within the given time, names conversation_history and user_id.
SELECT pid, application_name, to_char(query_start, 'YYYY-MM-DD HH24:MI:SS "UTC"') AS moment,
       left(shown, 120) || CASE WHEN length(shown) > 120 THEN ' …' ELSE '' END AS query,
       extract(epoch FROM clock_timestamp()
               - CASE WHEN state = 'active' THEN clock_timestamp() ELSE state_change END
       )::float AS ago_s
FROM pg_stat_activity, regexp_replace({blanked_query}, '\s+', ' ', 'g') AS shown
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
  AND (state IN ('active', 'idle in transaction')
       OR state_change > clock_timestamp() - make_interval(secs => %(within_s)s))
  AND query ~* '\yconversation_history\y' AND query ~* '\yuser_id\y'
  AND NOT starts_with(query, %(own)s)
ORDER BY query_start;

-- name: hidden_sessions
-- How many clients' statements cannot be seen: they are another role's, or are not tracked.
SELECT count(*) AS total FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND usesysid IS NOT NULL
  AND (query = '<insufficient privilege>'
       OR state = 'disabled' AND backend_type = 'client backend');

-- name: backup_for_contract
-- The newest backup that counts: young enough, and not from before contract was last taken back.
SELECT file, taken_at FROM memsync.backup
WHERE taken_at >= clock_timestamp() - make_interval(secs => %(within_s)s)
  AND taken_at > coalesce((SELECT max(coalesce(ended_at, started_at)) FROM memsync.runs
                           WHERE verb = 'rollback' AND phase = 'contract'), '-infinity')
ORDER BY id DESC LIMIT 1;

-- name: last_backup
-- The newest backup, whether it counts or not, and whether it is too old to count.
SELECT file, to_char(taken_at, 'YYYY-MM-DD HH24:MI:SS "UTC"') AS moment,
       taken_at < clock_timestamp() - make_interval(secs => %(within_s)s) AS old
FROM memsync.backup ORDER BY id DESC LIMIT 1;
