-- Prisma's history of migrations.

-- name: prisma_history
-- Every row of Prisma's history, oldest first.
SELECT migration_name, started_at, finished_at, rolled_back_at FROM _prisma_migrations
ORDER BY started_at, migration_name;

-- name: prisma_try_lock
-- Takes Prisma's own migration lock until the transaction ends; Prisma itself waits for it.
SELECT pg_try_advisory_xact_lock(72707369) AS taken;

-- name: prisma_roll_back
-- Marks the unfinished rows of a migration as rolled back, as `prisma migrate resolve` does.
UPDATE _prisma_migrations SET rolled_back_at = now()
WHERE migration_name = %(name)s AND finished_at IS NULL AND rolled_back_at IS NULL;

-- name: prisma_apply
-- Records a migration as applied, as `prisma migrate resolve` does: no steps, empty logs.
INSERT INTO _prisma_migrations
       (id, checksum, migration_name, logs, started_at, finished_at, applied_steps_count)
VALUES (%(id)s, %(checksum)s, %(name)s, '', now(), now(), 0);

-- name: prisma_relatives
-- Tables that look like the history of a Prisma that memsync does not know, by their name or by
-- their schema.
SELECT c.oid::regclass::text AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p')
  AND (n.nspname IN ('prisma', '_prisma')
       OR starts_with(c.relname, '_prisma') AND c.relname <> '_prisma_migrations'
          AND n.nspname = ANY (current_schemas(false)))
ORDER BY 1;
