-- The catalog's facts about any table.

-- name: relations
-- Which of the named relations exist on the search path.
SELECT name FROM unnest(%(names)s::text[]) AS name WHERE to_regclass(name) IS NOT NULL;

-- name: columns
-- The columns of a table in their order, and whether each is NOT NULL.
SELECT attname AS name, attnotnull AS not_null
FROM pg_attribute
WHERE attrelid = to_regclass(%(relation)s) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum;

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
-- The triggers on a table, without the server's internal ones.
SELECT tgname AS name FROM pg_trigger
WHERE tgrelid = to_regclass(%(relation)s) AND NOT tgisinternal;

-- name: server_version
-- The server's version as one number, 150004 for 15.4.
SELECT current_setting('server_version_num')::int AS number;

-- fragment: blanked_query
-- The column `query` of a session, which may quote people's words, without them: '...' stands for
-- each literal. From a place on where quotes cannot be paired for sure, '...' stands for the rest:
-- a dollar quote, a quote after a backslash, one in a comment, one that is not closed.
(SELECT regexp_replace(known, '((?:[^''"]|"(?:[^"]|"")*")*)''(?:[^'']|'''')*''', '\1''...''', 'g')
        || CASE WHEN known = query THEN '' ELSE '...' END
 FROM substring(query FROM '^(?:[^''"$/-]|"(?:[^"]|"")*"|''(?:[^''\\]|''''|\\[^''])*''|\$(?=\d)'
                           || '|-(?!-[^\n]*[''"$])|/(?!\*(?:[^*]|\*+[^*/])*(?:[''"$]|/\*)))*') AS known)

-- name: blockers
-- The sessions that hold a lock of these modes on the table, or those that wait for any if none
-- holds one; oldest transaction first. A prepared transaction has no pid, and its `query` is the
-- statement to end it.
WITH seen AS (
    SELECT pid, virtualtransaction, bool_or(granted AND mode = ANY(%(modes)s::text[])) AS holds
    FROM pg_locks
    WHERE relation = to_regclass(%(relation)s) AND pid IS DISTINCT FROM pg_backend_pid()
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (NOT granted OR mode = ANY(%(modes)s::text[]))
    GROUP BY 1, 2),
who AS (
    SELECT s.holds, a.pid, coalesce(a.state, 'of another role') AS state,
           left({blanked_query}, 200) AS query, a.xact_start AS since
    FROM seen s JOIN pg_stat_activity a ON a.pid = s.pid
    UNION ALL
    SELECT s.holds, NULL, 'no session',
           format('COMMIT PREPARED or ROLLBACK PREPARED %%L', p.gid), p.prepared
    FROM seen s
    JOIN pg_locks own ON own.virtualtransaction = s.virtualtransaction AND own.pid IS NULL
    JOIN pg_prepared_xacts p ON p.transaction = own.transactionid
    WHERE s.pid IS NULL)
SELECT pid, state, query,
       coalesce(extract(epoch FROM clock_timestamp() - since), 0)::float AS open_s
FROM who WHERE holds OR NOT EXISTS (SELECT FROM who WHERE holds)
ORDER BY since
LIMIT 5;

-- name: probe_update
-- Plans an UPDATE and does not run it. The server refuses the plan where the table's publications
-- make an UPDATE impossible.
-- lint: allow NO-WHERE it is not run
EXPLAIN UPDATE {table} SET {column} = {column};

-- name: probe_delete
-- The same for a DELETE.
-- lint: allow NO-WHERE it is not run
EXPLAIN DELETE FROM {table};

-- name: search_path
-- The schemas in which this session finds the app's tables.
SELECT current_schemas(false)::text[] AS schemas;
