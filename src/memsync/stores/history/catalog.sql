-- What the server's catalog says of the app's tables and of memsync's own.

-- name: relations
-- Which of the named relations exist on the search path.
SELECT name FROM unnest(%(names)s::text[]) AS name WHERE to_regclass(name) IS NOT NULL;

-- name: columns
-- The columns of a table in their order, and whether each must hold a value.
SELECT attname AS name, attnotnull AS not_null
FROM pg_attribute
WHERE attrelid = to_regclass(%(relation)s) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum;

-- name: own_schema
-- Whether memsync's schema stands.
SELECT to_regnamespace('memsync') IS NOT NULL AS there;
-- name: insertable
-- The columns of a table that an INSERT may name, in their order.
SELECT attname AS name FROM pg_attribute
WHERE attrelid = to_regclass(%(relation)s) AND attnum > 0 AND NOT attisdropped
  AND attgenerated = '' AND attidentity <> 'a'
ORDER BY attnum;

-- name: schema_of
-- The schema in which the search path finds a relation.
SELECT n.nspname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(%(relation)s);

-- name: indexes
-- The indexes of a table, and whether each is complete and usable.
SELECT c.relname AS name, i.indisvalid AND i.indisready AS valid
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(%(relation)s);

-- name: constraints
-- The constraints of a table, and whether each is known to hold for every row.
SELECT conname AS name, convalidated AS valid
FROM pg_constraint WHERE conrelid = to_regclass(%(relation)s);

-- name: triggers
-- The triggers on a table that users made.
SELECT tgname AS name FROM pg_trigger
WHERE tgrelid = to_regclass(%(relation)s) AND NOT tgisinternal;

-- name: objects_of
-- What the named relations are and have, as far as it is valid: relation (its relkind), column,
-- not null, index, constraint, trigger.
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

-- name: columns_of
-- The columns of the named relations: their types, and whether an INSERT must give a value.
SELECT n.name AS relation, a.attname AS name, format_type(a.atttypid, NULL) AS type,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS must_be_given
FROM unnest(%(names)s::text[]) AS n(name)
JOIN pg_attribute a ON a.attrelid = to_regclass(n.name) AND a.attnum > 0 AND NOT a.attisdropped;

-- name: unique_keys
-- The valid unique indexes of the named relations; partial: of some rows or of expressions.
SELECT n.name AS relation, i.indpred IS NOT NULL OR i.indexprs IS NOT NULL AS partial,
       array(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[:i.indnkeyatts - 1]))
           AS columns
FROM unnest(%(names)s::text[]) AS n(name) JOIN pg_index i ON i.indrelid = to_regclass(n.name)
WHERE i.indisunique AND i.indisvalid;

-- name: redesign_notes
-- What memsync made and dropped of the redesign.
SELECT object, change FROM memsync.redesign_change;

-- name: history_size
-- Rows (the planner's estimate) and bytes of the history with its indexes.
SELECT greatest(reltuples, 0)::bigint AS rows_estimated,
       pg_total_relation_size(oid) AS bytes_total,
       pg_relation_size(oid) / current_setting('block_size')::int AS blocks
FROM pg_class WHERE oid = to_regclass('conversation_history');

-- name: history_has_null_persona
-- Whether any message is without a persona. Quick once persona_id is indexed.
SELECT EXISTS (SELECT FROM conversation_history WHERE persona_id IS NULL) AS found;

-- name: server_version
-- The server's version as one number, 150004 for 15.4.
SELECT current_setting('server_version_num')::int AS number;
