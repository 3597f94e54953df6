-- Compares tables that stand with those that the finished schema would have.

-- name: standing_tables
-- The relations of these names that the search path finds.
SELECT name, to_regclass(name)::oid AS id FROM unnest(%(names)s::text[]) AS name
WHERE to_regclass(name) IS NOT NULL;

-- name: apps_elsewhere
-- The schemas outside of the search path that hold a history, the one table of these names that no
-- other app has.
SELECT n.nspname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'conversation_history' AND c.relkind IN ('r', 'p')
  AND n.nspname <> ALL (current_schemas(true))
  AND n.nspname NOT IN ('memsync_shadow', 'memsync_retired')
  AND NOT starts_with(n.nspname, 'pg_')
ORDER BY name;

-- name: make_them_temporary
-- Lets the tables that this transaction makes be temporary ones.
SET LOCAL search_path = pg_temp;

-- name: other_columns
-- The columns that a temporary table has and the standing one of its name lacks, or has with
-- another type.
SELECT named.name AS relation, a.attname AS name, expected.type AS expected, found.type AS found
FROM unnest(%(names)s::text[], %(ids)s::oid[]) AS named(name, id)
JOIN pg_class c ON c.relname = named.name AND c.relnamespace = pg_my_temp_schema()
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN LATERAL (SELECT format_type(a.atttypid, a.atttypmod) AS type) expected
LEFT JOIN LATERAL (
    SELECT format_type(s.atttypid, s.atttypmod) AS type FROM pg_attribute s
    WHERE s.attrelid = named.id AND s.attname = a.attname AND s.attnum > 0 AND NOT s.attisdropped
    ) found ON true
WHERE found.type IS DISTINCT FROM expected.type
ORDER BY named.name, a.attnum;
