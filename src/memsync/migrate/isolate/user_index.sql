-- The index for reading one user's thread.

-- name: create_user_index
-- Builds the index without blocking readers or writers.
CREATE INDEX CONCURRENTLY conversation_history_channel_id_personality_id_user_id_crea_idx
    ON conversation_history (channel_id, personality_id, user_id, created_at DESC, id DESC);

-- name: drop_user_index
-- Drops the index, if it exists.
DROP INDEX CONCURRENTLY IF EXISTS conversation_history_channel_id_personality_id_user_id_crea_idx;
