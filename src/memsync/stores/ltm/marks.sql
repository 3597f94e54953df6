-- The mark: how many batches of memories Postgres has settled. See marks.py.

-- name: mark_row
-- The mark as Postgres has it.
SELECT settled, is_set, rewound_at FROM memsync.mark;

-- name: is_standby
-- Whether this is a copy that follows the database, and may be behind.
SELECT pg_is_in_recovery() AS yes;

-- name: count_batch
-- Counts a batch of memories, in the transaction that settles it.
INSERT INTO memsync.mark AS mark (settled) VALUES (1)
ON CONFLICT (singleton) DO UPDATE SET settled = mark.settled + 1;

-- name: note_rewound
-- Notes that the vector store is ahead, so that it is known after Postgres has caught up.
INSERT INTO memsync.mark AS mark (rewound_at) VALUES (clock_timestamp())
ON CONFLICT (singleton) DO UPDATE SET rewound_at = coalesce(mark.rewound_at, clock_timestamp());

-- name: note_marked
-- Notes that the vector store has the mark.
UPDATE memsync.mark SET is_set = true WHERE NOT is_set;

-- name: trust_stores
-- Takes both stores as they are: the counting goes on from the higher number.
INSERT INTO memsync.mark AS mark (settled) VALUES (%(settled)s)
ON CONFLICT (singleton) DO UPDATE
SET settled = greatest(mark.settled, excluded.settled), is_set = false, rewound_at = NULL;
