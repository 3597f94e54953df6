-- The record of where memories lie.

-- name: recorded_layout
-- The layout, if a command that writes has decided it.
SELECT layout FROM memsync.layout;

-- name: record_layout
-- Records the layout, unless one is recorded.
INSERT INTO memsync.layout (layout, why) VALUES (%(layout)s, %(why)s) ON CONFLICT DO NOTHING;

-- name: change_layout
-- Records another layout, if the recorded one is still the one before.
UPDATE memsync.layout
SET layout = %(after)s, why = %(why)s, decided_at = clock_timestamp()
WHERE layout = %(before)s;

-- name: no_memory_is_due_yet
-- Whether no reply is without an entry of the outbox: nothing that was said had a memory before.
SELECT NOT EXISTS (
    SELECT FROM conversation_history h
    WHERE h.role = 'assistant'
      AND NOT EXISTS (SELECT FROM memsync.outbox o WHERE o.point_id = h.id)) AS is_new;
