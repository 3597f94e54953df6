-- Prisma's history of migrations, and the indexes that Prisma must be told of.

-- name: prisma_history
-- Every row of Prisma's history, oldest first, which is the order in which Prisma reads it.
SELECT migration_name, checksum, started_at, finished_at, rolled_back_at FROM _prisma_migrations
ORDER BY started_at, migration_name;

-- name: prisma_try_lock
-- Takes Prisma's own migration lock until the transaction ends; Prisma itself waits for it.
SELECT pg_try_advisory_xact_lock(72707369) AS taken;

-- name: prisma_roll_back
-- Marks the unfinished rows of a migration as rolled back, as `prisma migrate resolve` does.
UPDATE _prisma_migrations SET rolled_back_at = now()
WHERE migration_name = %(name)s AND finished_at IS NULL AND rolled_back_at IS NULL;

-- name: prisma_take_back
-- Marks the rows of a migration as rolled back, finished ones too. A row that Prisma itself rolled
-- back is not finished; of a name with a finished row it refuses `resolve --applied` for ever.
UPDATE _prisma_migrations SET rolled_back_at = now(), finished_at = NULL
WHERE migration_name = %(name)s AND rolled_back_at IS NULL;

-- name: prisma_apply
-- Records a migration as applied, as `prisma migrate resolve` does: no steps, empty logs. Each has
-- a moment of its own, because Prisma reads its history in this order.
INSERT INTO _prisma_migrations
       (id, checksum, migration_name, logs, started_at, finished_at, applied_steps_count)
VALUES (%(id)s, %(checksum)s, %(name)s, '', statement_timestamp(), statement_timestamp(), 0);

-- name: prisma_relatives
-- Tables that look like the history of a Prisma that memsync does not know, by their name or by
-- their schema. Prisma 8 keeps marker and ledger in the schema prisma_contract.
SELECT c.oid::regclass::text AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p')
  AND (n.nspname IN ('prisma', '_prisma', 'prisma_contract')
       OR starts_with(c.relname, '_prisma') AND c.relname <> '_prisma_migrations'
          AND n.nspname = ANY (current_schemas(false)))
ORDER BY 1;

-- name: prisma_indexes
-- The named indexes of the history that are complete: their columns, and which of them fall.
SELECT c.relname AS name,
       array_agg(a.attname::text ORDER BY k.place) AS columns,
       array_agg(i.indoption[k.place - 1] & 1 = 1 ORDER BY k.place) AS falling
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
CROSS JOIN LATERAL unnest(i.indkey::int[]) WITH ORDINALITY AS k(number, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
WHERE i.indrelid = to_regclass('conversation_history') AND i.indisvalid AND i.indisready
  AND c.relname = ANY (%(names)s::text[])
GROUP BY c.relname ORDER BY c.relname DESC;
