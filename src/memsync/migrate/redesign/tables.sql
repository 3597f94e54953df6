-- The new tables, columns and indexes of the settings.

-- name: clear_config_owners
-- Empties the owners who were deleted before the foreign key existed.
UPDATE llm_configs c SET owner_id = NULL
WHERE owner_id IS NOT NULL AND NOT EXISTS (SELECT FROM users u WHERE u.id = c.owner_id);

-- name: create_user_default_personas
-- A user's default persona, in a table of its own.
CREATE TABLE {schema}.user_default_personas (
    user_id uuid NOT NULL,
    persona_id uuid NOT NULL,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT user_default_personas_pkey PRIMARY KEY (user_id),
    CONSTRAINT user_default_personas_user_id_fkey FOREIGN KEY (user_id)
        REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT user_default_personas_persona_id_fkey FOREIGN KEY (persona_id)
        REFERENCES personas (id) ON DELETE CASCADE ON UPDATE CASCADE);

-- name: create_user_default_personas_key
-- The unique index that the app's ORM expects beside the primary key. The table is empty.
CREATE UNIQUE INDEX user_default_personas_user_id_key ON user_default_personas (user_id);

-- name: create_personality_default_configs
-- A personality's config, in a table of its own.
CREATE TABLE {schema}.personality_default_configs (
    personality_id uuid NOT NULL,
    llm_config_id uuid NOT NULL,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT personality_default_configs_pkey PRIMARY KEY (personality_id),
    CONSTRAINT personality_default_configs_personality_id_fkey FOREIGN KEY (personality_id)
        REFERENCES personalities (id) ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT personality_default_configs_llm_config_id_fkey FOREIGN KEY (llm_config_id)
        REFERENCES llm_configs (id) ON DELETE CASCADE ON UPDATE CASCADE);

-- name: create_personality_default_configs_key
-- The unique index that the app's ORM expects beside the primary key. The table is empty.
CREATE UNIQUE INDEX personality_default_configs_personality_id_key
    ON personality_default_configs (personality_id);

-- name: drop_user_default_personas
-- Drops the table, on rollback.
DROP TABLE IF EXISTS user_default_personas;

-- name: drop_personality_default_configs
-- Drops the table, on rollback.
DROP TABLE IF EXISTS personality_default_configs;

-- name: add_config_owner
-- The owner of a config.
ALTER TABLE llm_configs ADD COLUMN owner_id uuid;

-- name: refill_config_owner
-- Fills in the owners that a rollback archived, if they still exist.
UPDATE llm_configs c SET owner_id = u.id
FROM memsync.column_archive a JOIN users u ON u.id = (a.value #>> '{}')::uuid
WHERE a.column_name = 'llm_configs.owner_id' AND a.row_id = c.id;

-- name: add_config_is_global
-- Whether a config is global.
ALTER TABLE llm_configs ADD COLUMN is_global boolean NOT NULL DEFAULT false;

-- name: open_default_configs
-- Makes default configs global.
UPDATE llm_configs SET is_global = true WHERE is_default;

-- name: refill_config_is_global
-- Fills in the values that a rollback archived.
UPDATE llm_configs c SET is_global = a.value::boolean
FROM memsync.column_archive a
WHERE a.column_name = 'llm_configs.is_global' AND a.row_id = c.id;

-- name: add_config_window
-- The window of a config, which before the redesign was its personality's.
ALTER TABLE llm_configs ADD COLUMN context_window_size integer NOT NULL DEFAULT 20;

-- name: refill_config_window
-- Fills in the values that a rollback archived.
UPDATE llm_configs c SET context_window_size = a.value::int
FROM memsync.column_archive a
WHERE a.column_name = 'llm_configs.context_window_size' AND a.row_id = c.id;

-- name: drop_config_owner_key
-- Drops the foreign key of the owner, on rollback.
ALTER TABLE llm_configs DROP CONSTRAINT IF EXISTS llm_configs_owner_id_fkey;

-- name: keep_config_column
-- Archives the values of a new column, on rollback.
INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT {column_name}, id, to_jsonb({column}) FROM llm_configs WHERE {column} IS NOT NULL;

-- name: drop_config_column
-- Drops a new column, on rollback.
ALTER TABLE llm_configs DROP COLUMN IF EXISTS {column};

-- name: create_settings_index
-- Builds an index of the settings, without blocking readers or writers.
CREATE INDEX CONCURRENTLY {index} ON {table} ({column});

-- name: drop_settings_index
-- Drops the index, without blocking readers or writers.
DROP INDEX CONCURRENTLY IF EXISTS {index};

-- name: lock_configs
-- Takes the lock that dropping needs. The values are archived under it, so that none is lost.
-- lint: allow STRONG-LOCK for a moment, by lock_timeout
LOCK TABLE llm_configs, personalities IN ACCESS EXCLUSIVE MODE;
