-- The table of choices: its new name, a view with the old one, and the rollback.

-- name: rename_choices
-- Gives the table of choices its new name.
ALTER TABLE user_personality_settings RENAME TO user_personality_configs;

-- name: rename_choices_back
-- Gives it its old name, on rollback.
ALTER TABLE user_personality_configs RENAME TO user_personality_settings;

-- name: rename_index
-- Renames an index. Readers and writers pass.
ALTER INDEX {old} RENAME TO {new};

-- name: rename_choices_constraint
-- Renames a constraint to go with the table of choices.
ALTER TABLE user_personality_configs RENAME CONSTRAINT {old} TO {new};

-- name: named_after
-- The indexes and constraints of a table whose names begin with the table's name.
SELECT 'constraint' AS kind, conname::text AS name FROM pg_constraint
WHERE conrelid = to_regclass(%(relation)s) AND starts_with(conname, %(prefix)s)
UNION ALL
SELECT 'index', c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(%(relation)s) AND starts_with(c.relname, %(prefix)s)
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid);

-- name: lock_choices
-- Under this lock the last rows are copied, and the table moves.
-- lint: allow STRONG-LOCK for a moment, by lock_timeout
LOCK TABLE user_personality_settings IN ACCESS EXCLUSIVE MODE;

-- name: merge_choices
-- Copies the choices that only the old table holds into the table that the app made.
INSERT INTO user_personality_configs ({columns}) SELECT {columns} FROM user_personality_settings
ON CONFLICT DO NOTHING;

-- name: put_choices_aside
-- Keeps the old table of choices in the schema memsync, for a rollback.
ALTER TABLE user_personality_settings SET SCHEMA memsync;

-- name: bring_choices_back
-- Moves the table back, on rollback.
ALTER TABLE memsync.user_personality_settings SET SCHEMA {schema};

-- name: forget_removed_choices
-- Removes choices from the old table that are no longer in the new one, before the old one comes
-- back.
DELETE FROM memsync.user_personality_settings s
WHERE NOT EXISTS (SELECT FROM user_personality_configs c
                  WHERE c.user_id = s.user_id AND c.personality_id = s.personality_id);

-- name: create_choices_view
-- A view with the old name of the table of choices. It runs as the caller, so that the table's own
-- grants and row policies apply under both names.
-- https://www.postgresql.org/docs/current/sql-createview.html
CREATE VIEW {schema}.user_personality_settings WITH (security_invoker) AS
SELECT {columns} FROM user_personality_configs;

-- name: drop_choices_view
-- Drops the view, on rollback.
DROP VIEW IF EXISTS user_personality_settings;
