-- What a backup holds, and that it was made.

-- name: export_snapshot
-- Lets pg_dump see exactly what this transaction sees.
SELECT pg_export_snapshot() AS id, now() AS taken_at,
       (SELECT count(*) FROM conversation_history) AS history_rows;

-- name: backup_tables
-- Tables by schema: those to back up, with all of memsync's own, and the others beside them.
WITH kept AS (
    SELECT to_regclass(name)::oid AS oid FROM unnest(%(names)s::text[]) AS name)
SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind,
       n.nspname = 'memsync'
       OR coalesce(pg_partition_root(c.oid), c.oid) IN (SELECT oid FROM kept) AS kept
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  AND (n.nspname = 'memsync'
       OR n.oid IN (SELECT relnamespace FROM pg_class WHERE oid IN (SELECT oid FROM kept)))
ORDER BY 1, 2;

-- name: note_backup
-- Records a backup that was written and read back.
INSERT INTO memsync.backup (file, bytes, sha256, tables, history_rows, snapshot, taken_at)
VALUES (%(file)s, %(bytes)s, %(sha256)s, %(tables)s, %(history_rows)s, %(snapshot)s, %(taken_at)s);
