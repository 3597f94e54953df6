-- Disk: what the history takes.

-- name: disk_space
-- The bytes that the history takes on disk, the most that WAL takes by its settings, and where they
-- are. `folder` is NULL for a role that may not know it. `here` is whether the server seems to run
-- on the client's machine, with its process `pid`.
SELECT pg_table_size(c.oid) AS table_bytes, pg_indexes_size(c.oid) AS index_bytes,
       pg_size_bytes(current_setting('max_wal_size')) AS wal_bytes,
       inet_server_addr() IS NULL OR inet_server_addr() = inet_client_addr() AS here,
       pg_backend_pid() AS pid,
       coalesce(nullif(pg_tablespace_location(
                    coalesce(nullif(c.reltablespace, 0), d.dattablespace)), ''),
                (SELECT setting FROM pg_settings WHERE name = 'data_directory')) AS folder
FROM pg_class c, pg_database d
WHERE c.oid = to_regclass('conversation_history') AND d.datname = current_database();
