-- How far the fill has come, and any index build that is running. Reads only.
\set ON_ERROR_STOP on
SELECT to_regclass('memsync.backfill') IS NOT NULL AS begun \gset
\if :begun
SELECT next_block, end_block, rows_done, rows_total,
       round(100.0 * rows_done / nullif(rows_total, 0), 1) AS percent, updated_at
FROM memsync.backfill;
\else
\echo 'the fill has not begun: there is no memsync.backfill'
\endif
SELECT pid, index_relid::regclass AS index_name, phase, blocks_done, blocks_total
FROM pg_stat_progress_create_index;
