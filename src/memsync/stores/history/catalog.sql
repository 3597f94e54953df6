-- Reads the catalog's facts about the app's tables, and memsync's records of what it did to them.

-- name: own_schema
-- Whether memsync's schema exists.
SELECT to_regnamespace('memsync') IS NOT NULL AS there;

-- name: objects_of
-- The objects of the named relations, by kind: relation (its relkind), column, not null, index (if
-- valid), constraint, trigger.
WITH named AS (
    SELECT c.oid, n.name AS relation, c.relkind
    FROM unnest(%(names)s::text[]) AS n(name) JOIN pg_class c ON c.oid = to_regclass(n.name))
SELECT relation, 'relation' AS kind, relkind::text AS name FROM named
UNION ALL
SELECT n.relation, v.kind, a.attname::text
FROM named n JOIN pg_attribute a ON a.attrelid = n.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN LATERAL (VALUES ('column', true), ('not null', a.attnotnull)) AS v(kind, holds)
WHERE v.holds
UNION ALL
SELECT n.relation, 'index', c.relname::text
FROM named n JOIN pg_index i ON i.indrelid = n.oid JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indisvalid AND i.indisready
UNION ALL
SELECT n.relation, 'constraint', k.conname::text
FROM named n JOIN pg_constraint k ON k.conrelid = n.oid
UNION ALL
SELECT n.relation, 'trigger', t.tgname::text
FROM named n JOIN pg_trigger t ON t.tgrelid = n.oid WHERE NOT t.tgisinternal;

-- name: redesign_notes
-- The objects of the redesign that memsync created or dropped.
SELECT object, change FROM memsync.redesign_change;

-- name: history_size
-- The history's rows, and bytes with its indexes. A small table, or one that was never analyzed, is
-- counted; else the planner's density is applied to the blocks of now.
WITH found AS MATERIALIZED (
    SELECT reltuples, relpages, pg_total_relation_size(oid) AS bytes_total,
           pg_relation_size(oid) / current_setting('block_size')::int AS blocks,
           reltuples < 1 OR relpages < 1 OR pg_relation_size(oid) <= %(small_bytes)s AS is_exact
    FROM pg_class WHERE oid = to_regclass('conversation_history'))
SELECT CASE WHEN is_exact THEN (SELECT count(*) FROM conversation_history)
            ELSE (reltuples / relpages * blocks)::bigint END AS rows,
       is_exact, bytes_total
FROM found;

-- name: history_blocks
-- The history's blocks, without those of its indexes.
SELECT pg_relation_size(to_regclass('conversation_history'))
       / current_setting('block_size')::int AS blocks;

-- name: hold_history
-- Keeps DDL off the history until the end of the transaction; readers and writers pass.
-- lint: allow STRONG-LOCK ACCESS SHARE is what each query takes
LOCK TABLE conversation_history IN ACCESS SHARE MODE;

-- name: history_has_null_persona
-- Whether any message has no persona. Fast once persona_id is indexed.
SELECT EXISTS (SELECT FROM conversation_history WHERE persona_id IS NULL) AS found;

-- name: instance_id
-- Which database this is: the id that it was given when memsync's schema was made.
SELECT id FROM memsync.instance;

-- name: way_back_is_open
-- Whether memsync archived and dropped user_id, and no later run took contract back or removed the
-- archive.
SELECT coalesce((SELECT user_id_dropped FROM memsync.runs
                 WHERE user_id_dropped
                    OR outcome = 'done' AND (verb = 'finalize'
                                             OR verb = 'rollback' AND phase = 'contract')
                 ORDER BY id DESC LIMIT 1), false) AS open;
