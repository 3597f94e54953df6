-- The schema of memsync's own tables, alembic's version table among them.

-- name: create_own_schema
-- Makes the schema. The tables in it are made by the phase isolate.
CREATE SCHEMA IF NOT EXISTS memsync;
