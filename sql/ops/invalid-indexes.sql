-- Indexes whose concurrent build was cut short: every write updates them, but no read uses them.
-- Reads only.
\set ON_ERROR_STOP on
SELECT i.indrelid::regclass AS table_name, i.indexrelid::regclass AS index_name
FROM pg_index i
WHERE NOT (i.indisvalid AND i.indisready)
ORDER BY 1, 2;
