-- Archives what user_id alone says, drops the column, and brings it back.

-- name: archive_exceptions
-- Archives the user of every message whose persona belongs to somebody else. The user of any other
-- message is its persona's owner.
INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason)
SELECT h.id, h.user_id, h.persona_id, 'owner-differs'
FROM conversation_history h JOIN personas p ON p.id = h.persona_id
WHERE h.user_id IS NOT NULL AND p.owner_id IS DISTINCT FROM h.user_id
ON CONFLICT (history_id) DO UPDATE SET user_id = excluded.user_id;

-- name: drop_user_key
-- Drops the foreign key. On its own, because it locks users too.
ALTER TABLE conversation_history DROP CONSTRAINT conversation_history_user_id_fkey;

-- name: drop_user_id
-- Drops the column.
ALTER TABLE conversation_history DROP COLUMN user_id;

-- name: add_user_id
-- Adds the column again, on the way back; it is empty.
ALTER TABLE conversation_history ADD COLUMN user_id uuid;

-- name: create_user_id_index
-- Builds the app's own index on the column while readers and writers pass.
CREATE INDEX CONCURRENTLY conversation_history_user_id_idx ON conversation_history (user_id);

-- name: drop_persona_check
-- Drops the check that proved persona_id present.
ALTER TABLE conversation_history DROP CONSTRAINT memsync_persona_id_present;

-- name: allow_null_persona
-- Lets messages be without a persona again.
ALTER TABLE conversation_history ALTER persona_id DROP NOT NULL;
