-- The snapshot and the tables of a backup, and its record.

-- name: export_snapshot
-- Lets pg_dump see exactly what this transaction sees.
SELECT pg_export_snapshot() AS id, now() AS taken_at,
       (SELECT count(*) FROM conversation_history) AS history_rows;

-- name: backup_tables
-- Relations by schema. `kept` marks those to back up, all of memsync's own among them; the others
-- only share a schema with them.
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

-- name: database_name
-- The name of this database.
SELECT current_database()::text AS name;

-- name: create_restored
-- Makes the database into which a backup is restored; people run it.
CREATE DATABASE {database} TEMPLATE template0;

-- name: backup_extensions
-- The extensions, which a dump of schemas does not have: how people make each, and its schema.
SELECT format('CREATE SCHEMA IF NOT EXISTS %%I; CREATE EXTENSION IF NOT EXISTS %%I WITH SCHEMA %%I',
              n.nspname, e.extname, n.nspname) AS made,
       n.nspname AS schema
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE n.nspname <> 'pg_catalog' ORDER BY e.oid;

-- name: note_backup
-- Records a backup that was written and read back.
INSERT INTO memsync.backup (file, bytes, sha256, tables, history_rows, snapshot, taken_at)
VALUES (%(file)s, %(bytes)s, %(sha256)s, %(tables)s, %(history_rows)s, %(snapshot)s, %(taken_at)s);
