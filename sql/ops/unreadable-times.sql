-- The messages whose time is infinite, before the year 1 or after the year 9999, as memsync's finding
-- unreadable-time names them. memsync leaves them out until their time is corrected. Reads only.
\set ON_ERROR_STOP on
SELECT to_regclass('conversation_history') IS NOT NULL AS stands \gset
\if :stands
SELECT id, channel_id, personality_id, role, created_at, left(content, 40) AS begins
FROM conversation_history
WHERE (created_at >= timestamp '0001-01-01' AND created_at < timestamp '10000-01-01') IS NOT TRUE
ORDER BY id;
\else
\echo 'there is no conversation_history'
\endif
