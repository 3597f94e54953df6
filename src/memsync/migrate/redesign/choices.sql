-- The table of choices: its new name, a view that bears the old one, and the way back.

-- name: rename_choices
-- Gives the table of choices its new name.
ALTER TABLE user_personality_settings RENAME TO user_personality_configs;

-- name: rename_choices_back
-- Gives it its old name, on the way back.
ALTER TABLE user_personality_configs RENAME TO user_personality_settings;

-- name: rename_choices_index
-- Gives an index of the table of choices the name that goes with its own.
ALTER INDEX {old} RENAME TO {new};

-- name: rename_choices_constraint
-- Gives a constraint of the table of choices the name that goes with its own.
ALTER TABLE user_personality_configs RENAME CONSTRAINT {old} TO {new};

-- name: named_after
-- The indexes and constraints of a table whose names begin with its own.
SELECT 'constraint' AS kind, conname::text AS name FROM pg_constraint
WHERE conrelid = to_regclass(%(relation)s) AND starts_with(conname, %(prefix)s)
UNION ALL
SELECT 'index', c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(%(relation)s) AND starts_with(c.relname, %(prefix)s)
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid);

-- name: lock_choices
-- The last rows move under this lock.
-- lint: allow STRONG-LOCK for a moment, by lock_timeout
LOCK TABLE user_personality_settings IN ACCESS EXCLUSIVE MODE;

-- name: merge_choices
-- Copies the choices that only the old table holds into the one that the app made.
INSERT INTO user_personality_configs ({columns}) SELECT {columns} FROM user_personality_settings
ON CONFLICT DO NOTHING;

-- name: put_choices_aside
-- Puts the old table of choices aside, for the way back.
ALTER TABLE user_personality_settings SET SCHEMA memsync;

-- name: bring_choices_back
-- Puts it in its place again, on the way back.
ALTER TABLE memsync.user_personality_settings SET SCHEMA {schema};

-- name: forget_removed_choices
-- Removes from the old table of choices, before it comes back, what is no longer chosen.
DELETE FROM memsync.user_personality_settings s
WHERE NOT EXISTS (SELECT FROM user_personality_configs c
                  WHERE c.user_id = s.user_id AND c.personality_id = s.personality_id);

-- name: create_choices_view
-- A view that bears the old name of the table of choices. As the caller: the table's own grants and
-- row policies hold by either name.
CREATE VIEW {schema}.user_personality_settings WITH (security_invoker) AS
SELECT {columns} FROM user_personality_configs;

-- name: drop_choices_view
-- Drops it, on the way back.
DROP VIEW IF EXISTS user_personality_settings;
