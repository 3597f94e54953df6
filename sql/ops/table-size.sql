-- The disk space of the history, index by index, how many of its rows are dead, and when it was
-- vacuumed; then memsync's own tables, if they exist. Reads only.
\set ON_ERROR_STOP on
SELECT c.relname AS name, CASE c.relkind WHEN 'i' THEN 'index' ELSE 'table' END AS kind,
       pg_size_pretty(pg_table_size(c.oid)) AS size,
       pg_size_pretty(pg_total_relation_size(c.oid)) AS with_indexes
FROM pg_class c
LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE c.oid = to_regclass('conversation_history')
   OR i.indrelid = to_regclass('conversation_history')
ORDER BY c.relkind = 'i', pg_table_size(c.oid) DESC;
SELECT n_live_tup AS live, n_dead_tup AS dead, last_vacuum, last_autovacuum, last_analyze,
       last_autoanalyze
FROM pg_stat_user_tables WHERE relid = to_regclass('conversation_history');
SELECT c.oid::regclass AS name, pg_size_pretty(pg_total_relation_size(c.oid)) AS with_indexes
FROM pg_class c WHERE c.relnamespace = to_regnamespace('memsync') AND c.relkind = 'r'
ORDER BY pg_total_relation_size(c.oid) DESC;
