-- The old places of the settings: archived, dropped, and added again on rollback.

-- name: lock_table
-- Takes the lock that dropping needs. The values are archived under it, so that none is lost.
-- lint: allow STRONG-LOCK for a moment, by lock_timeout
LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;

-- name: keep_personality_windows
-- Archives the windows of personalities without a config, because no config holds them.
INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'personalities.context_window_size', id, to_jsonb(context_window_size) FROM personalities
WHERE llm_config_id IS NULL
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value;

-- name: keep_global_personas
-- Archives which personas are global.
INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'personas.is_global', id, to_jsonb(is_global) FROM personas WHERE is_global
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value;

-- name: keep_default_configs
-- Archives which configs are a default.
INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'llm_configs.is_default', id, to_jsonb(is_default) FROM llm_configs WHERE is_default
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value;

-- name: drop_column
-- Drops an old column.
ALTER TABLE {table} DROP COLUMN {column};

-- name: drop_old_choices
-- Drops the view with the old name of the table of choices.
DROP VIEW user_personality_settings;

-- name: add_global_persona_id
-- Adds the column of users' default personas again.
ALTER TABLE users ADD COLUMN global_persona_id uuid;

-- name: add_llm_config_id
-- Adds the column of personalities' configs again.
ALTER TABLE personalities ADD COLUMN llm_config_id uuid;

-- name: add_personality_window
-- Adds the column of personalities' windows again.
ALTER TABLE personalities ADD COLUMN context_window_size integer NOT NULL DEFAULT 20;

-- name: add_persona_is_global
-- Adds the mark of global personas again.
ALTER TABLE personas ADD COLUMN is_global boolean NOT NULL DEFAULT false;

-- name: refill_persona_is_global
-- Marks the personas that were global.
UPDATE personas p SET is_global = true FROM memsync.column_archive a
WHERE a.column_name = 'personas.is_global' AND a.row_id = p.id;

-- name: add_is_default
-- Adds the mark of default configs again.
ALTER TABLE llm_configs ADD COLUMN is_default boolean NOT NULL DEFAULT false;

-- name: refill_is_default
-- Marks the configs that were a default.
UPDATE llm_configs c SET is_default = true FROM memsync.column_archive a
WHERE a.column_name = 'llm_configs.is_default' AND a.row_id = c.id;

-- name: allow_no_owner
-- Allows personas without an owner again.
ALTER TABLE personas ALTER owner_id DROP NOT NULL;

-- name: drop_owner_check
-- Drops the check that proved that every persona has an owner.
ALTER TABLE personas DROP CONSTRAINT IF EXISTS memsync_owner_id_present;
