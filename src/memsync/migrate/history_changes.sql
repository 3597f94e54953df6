-- The notes of what memsync created and dropped of the history. They are written in the transaction
-- that changes the object, or before the build of an index, which has no transaction.

-- name: note_history_change
-- Notes that an object is created or dropped.
INSERT INTO memsync.history_change (object, change) VALUES ({object}, {change})
ON CONFLICT DO NOTHING;

-- name: forget_history_change
-- Removes the note, once the change is undone.
DELETE FROM memsync.history_change WHERE object = {object};
