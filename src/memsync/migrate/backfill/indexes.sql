-- Two indexes and a foreign key for reading by persona. They are built after the fill, because each
-- filled row would have to update them. The shadow table gets the same indexes under the same
-- names.

-- fragment: persona_columns
-- Columns for reading the messages of a persona, and for the foreign key.
(persona_id);

-- fragment: retrieval_columns
-- Columns for reading the newest messages of one thread.
(channel_id, personality_id, persona_id, created_at DESC, id DESC);

-- name: create_persona_index
-- Builds it without blocking readers or writers.
CREATE INDEX CONCURRENTLY conversation_history_persona_id_idx
    ON conversation_history {persona_columns};

-- name: create_retrieval_index
-- Builds it without blocking readers or writers.
CREATE INDEX CONCURRENTLY conversation_history_channel_id_personality_id_persona_id_c_idx
    ON conversation_history {retrieval_columns};

-- name: create_shadow_persona_index
-- The same on the shadow table, which no client uses.
CREATE INDEX conversation_history_persona_id_idx
    ON memsync_shadow.conversation_history {persona_columns};

-- name: create_shadow_retrieval_index
-- The same on the shadow table, which no client uses.
CREATE INDEX conversation_history_channel_id_personality_id_persona_id_c_idx
    ON memsync_shadow.conversation_history {retrieval_columns};

-- name: drop_persona_key
-- Drops the foreign key, on rollback.
ALTER TABLE conversation_history DROP CONSTRAINT IF EXISTS conversation_history_persona_id_fkey;

-- name: drop_retrieval_index
-- Drops it without blocking readers or writers.
DROP INDEX CONCURRENTLY IF EXISTS conversation_history_channel_id_personality_id_persona_id_c_idx;

-- name: drop_persona_index
-- Drops it without blocking readers or writers.
DROP INDEX CONCURRENTLY IF EXISTS conversation_history_persona_id_idx;
