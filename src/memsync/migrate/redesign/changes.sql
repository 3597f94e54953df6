-- The notes of what memsync created and dropped in the redesign. They are written in the
-- transaction that changes the object.

-- name: note_change
-- Notes that an object is created or dropped.
INSERT INTO memsync.redesign_change (object, change) VALUES ({object}, {change})
ON CONFLICT DO NOTHING;

-- name: forget_change
-- Removes the note, once the change is undone.
DELETE FROM memsync.redesign_change WHERE object = {object};

-- name: forget_values
-- Removes the archived values of a column.
DELETE FROM memsync.column_archive WHERE column_name = {column_name};

-- name: bring_back_rows
-- Inserts archived rows again, unless they exist. Columns that the table gained since take their
-- defaults.
INSERT INTO {target} ({columns}) SELECT {columns} FROM
(SELECT (jsonb_populate_record(NULL::{target}, k.kept)).* FROM {rows_kept} AS k) AS again
ON CONFLICT (id) DO NOTHING;
