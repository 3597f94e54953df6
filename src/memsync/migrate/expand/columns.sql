-- The new column persona_id of the history.

-- name: add_persona_id
-- Adds the column without a default, so that no row is written. Locks: ACCESS EXCLUSIVE, for a
-- moment.
ALTER TABLE conversation_history ADD COLUMN persona_id uuid;

-- name: drop_persona_id
-- Drops the column, on rollback.
ALTER TABLE conversation_history DROP COLUMN IF EXISTS persona_id;

-- name: archive_personas
-- Archives the persona of every message for which archive and map would give another, before
-- persona_id is dropped.
INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason)
SELECT h.id, h.user_id, h.persona_id, 'kept'
FROM conversation_history h
LEFT JOIN memsync.persona_map m USING (user_id, personality_id)
LEFT JOIN memsync.row_archive a ON a.history_id = h.id
WHERE h.persona_id IS NOT NULL
  AND h.persona_id IS DISTINCT FROM coalesce(a.persona_id, m.persona_id)
ON CONFLICT (history_id) DO UPDATE
SET persona_id = excluded.persona_id, reason = excluded.reason, source = NULL;

-- name: forget_fill
-- Removes the checkpoint of a fill, because its column is new or about to be dropped.
DELETE FROM memsync.backfill WHERE fill = %(fill)s;

-- name: restore_existing
-- Gives messages the persona back that they had before memsync came, where the run decided anew.
UPDATE conversation_history h SET persona_id = p.id
FROM memsync.column_archive a JOIN personas p ON p.id = (a.value #>> '{}')::uuid
WHERE a.column_name = 'conversation_history.persona_id' AND a.row_id = h.id
  AND h.persona_id IS DISTINCT FROM p.id;

-- name: forget_existing
-- Removes these values from the archive.
DELETE FROM memsync.column_archive WHERE column_name = 'conversation_history.persona_id';
