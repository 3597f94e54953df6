-- The columns and keys that the redesign requires, from the server's catalog.

-- name: columns_of
-- The columns of the named relations: their types, and whether an INSERT must give a value.
SELECT n.name AS relation, a.attname AS name, format_type(a.atttypid, NULL) AS type,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS must_be_given
FROM unnest(%(names)s::text[]) AS n(name)
JOIN pg_attribute a ON a.attrelid = to_regclass(n.name) AND a.attnum > 0 AND NOT a.attisdropped;

-- name: unique_keys
-- The valid unique indexes of the named relations. `partial` means that an index covers only some
-- rows, or expressions.
SELECT n.name AS relation, i.indpred IS NOT NULL OR i.indexprs IS NOT NULL AS partial,
       array(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[:i.indnkeyatts - 1]))
           AS columns
FROM unnest(%(names)s::text[]) AS n(name) JOIN pg_index i ON i.indrelid = to_regclass(n.name)
WHERE i.indisunique AND i.indisvalid;
