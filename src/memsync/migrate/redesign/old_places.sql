-- The old places of the settings: what only they hold is kept, then they go; and the way back.

-- name: lock_table
-- Dropping needs this lock; what is dropped is archived under it.
-- lint: allow STRONG-LOCK for a moment, by lock_timeout
LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;

-- name: keep_personality_windows
-- Keeps the windows of personalities without a config: no config holds them.
INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'personalities.context_window_size', id, to_jsonb(context_window_size) FROM personalities
WHERE llm_config_id IS NULL
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value;

-- name: keep_global_personas
-- Keeps which personas were global.
INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'personas.is_global', id, to_jsonb(is_global) FROM personas WHERE is_global
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value;

-- name: keep_default_configs
-- Keeps which configs were the default.
INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'llm_configs.is_default', id, to_jsonb(is_default) FROM llm_configs WHERE is_default
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value;

-- name: forget_column
-- Forgets what was kept of an old column, once it is there again.
DELETE FROM memsync.column_archive WHERE column_name = {column_name};

-- name: drop_column
-- Drops an old column.
ALTER TABLE {table} DROP COLUMN {column};

-- name: drop_old_choices
-- Drops the view that bears the old name of the table of choices.
DROP VIEW user_personality_settings;

-- name: add_global_persona_id
-- A user's default persona, in its old place again.
ALTER TABLE users ADD COLUMN global_persona_id uuid;

-- name: add_llm_config_id
-- A personality's config, in its old place again.
ALTER TABLE personalities ADD COLUMN llm_config_id uuid;

-- name: add_personality_window
-- A personality's window, in its old place again.
ALTER TABLE personalities ADD COLUMN context_window_size integer NOT NULL DEFAULT 20;

-- name: add_persona_is_global
-- Whether a persona is global, in its old place again.
ALTER TABLE personas ADD COLUMN is_global boolean NOT NULL DEFAULT false;

-- name: refill_persona_is_global
-- The personas that were global.
UPDATE personas p SET is_global = true FROM memsync.column_archive a
WHERE a.column_name = 'personas.is_global' AND a.row_id = p.id;

-- name: add_is_default
-- Whether a config is the default, in its old place again.
ALTER TABLE llm_configs ADD COLUMN is_default boolean NOT NULL DEFAULT false;

-- name: refill_is_default
-- The configs that were the default.
UPDATE llm_configs c SET is_default = true FROM memsync.column_archive a
WHERE a.column_name = 'llm_configs.is_default' AND a.row_id = c.id;

-- name: create_old_index
-- Builds an index of the app's on an old column while readers and writers pass.
CREATE INDEX CONCURRENTLY {index} ON {table} ({column});

-- name: allow_no_owner
-- Lets personas be without an owner again.
ALTER TABLE personas ALTER owner_id DROP NOT NULL;

-- name: drop_owner_check
-- Drops the check that proved every owner present.
ALTER TABLE personas DROP CONSTRAINT IF EXISTS memsync_owner_id_present;
