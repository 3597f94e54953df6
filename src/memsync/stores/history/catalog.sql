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

-- name: history_notes
-- The objects of the history that memsync created or dropped.
SELECT object, change FROM memsync.history_change;

-- name: history_size
-- The history's bytes with its indexes; its rows by the planner's density and the blocks of now;
-- and whether to count them instead: a small table, or one never analyzed, that this role may read.
SELECT (CASE WHEN relpages > 0 THEN greatest(reltuples, 0) / relpages * blocks ELSE 0 END)::bigint
           AS rows,
       bytes_total,
       (reltuples < 1 OR relpages < 1 OR bytes_table <= %(small_bytes)s)
           AND has_table_privilege(oid, 'SELECT') AS countable
FROM (SELECT oid, reltuples, relpages, pg_total_relation_size(oid) AS bytes_total,
             pg_relation_size(oid) AS bytes_table,
             pg_relation_size(oid) / current_setting('block_size')::int AS blocks
      FROM pg_class WHERE oid = to_regclass('conversation_history')) found;

-- name: count_messages
-- How many messages there are.
SELECT count(*) AS total FROM conversation_history;

-- name: may_read_history
-- Whether this role may read messages.
SELECT has_table_privilege(to_regclass('conversation_history'), 'SELECT') AS yes;

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
