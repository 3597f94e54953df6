-- The record of runs: what was begun, how it ended, and what that means for the next run.

-- name: begin_record
-- Notes that a phase begins, or is taken back.
INSERT INTO memsync.runs (verb, phase, memsync_version)
VALUES (%(verb)s, %(phase)s, %(version)s) RETURNING id;

-- name: end_record
-- Notes how it ended.
UPDATE memsync.runs
SET ended_at = clock_timestamp(), outcome = %(outcome)s, lock_waits = %(lock_waits)s,
    rows_filled = %(rows_filled)s, waited_s = %(waited_s)s
WHERE id = %(id)s AND outcome IS DISTINCT FROM 'done';

-- name: backfill_stands
-- Whether a backfill came to its end and was not taken back since.
SELECT coalesce((SELECT verb = 'run' FROM memsync.runs
                 WHERE outcome = 'done' AND phase IN ('backfill', 'expand')
                   AND (verb = 'rollback' OR phase = 'backfill')
                 ORDER BY id DESC LIMIT 1), false) AS found;

-- name: note_archive_removed
-- Ends the way back, in the transaction that removes the archive.
UPDATE memsync.runs SET ended_at = clock_timestamp(), outcome = 'done'
WHERE id = (SELECT max(id) FROM memsync.runs WHERE verb = 'finalize');

-- name: note_user_id_dropped
-- Notes, in the transaction that drops user_id, that it was memsync, which archived it before.
UPDATE memsync.runs SET user_id_dropped = true
WHERE id = (SELECT max(id) FROM memsync.runs WHERE verb = 'run' AND phase = 'contract');

-- name: note_gates_passed
-- Notes in the record of runs that the gates of this contract are open, and on what grounds.
UPDATE memsync.runs SET gates_passed = true, note = %(note)s
WHERE id = (SELECT max(id) FROM memsync.runs WHERE verb = 'run' AND phase = 'contract');

-- name: contract_was_begun
-- Whether the last that happened to contract is that it passed its gates and began.
SELECT coalesce((SELECT verb = 'run' AND NOT user_id_dropped FROM memsync.runs
                 WHERE phase = 'contract' AND (gates_passed OR verb = 'rollback')
                 ORDER BY id DESC LIMIT 1), false) AS begun;

-- name: was_run_last
-- Whether the last that was done about a phase is that it was run, not that it was taken back.
SELECT coalesce((SELECT verb = 'run' FROM memsync.runs WHERE phase = %(phase)s
                 AND outcome = 'done' ORDER BY id DESC LIMIT 1), false) AS found;

-- name: note_method
-- Keeps in the record of runs how the backfill that has just begun goes about it, and why.
UPDATE memsync.runs SET note = %(note)s
WHERE id = (SELECT max(id) FROM memsync.runs WHERE verb = 'run' AND phase = 'backfill');
