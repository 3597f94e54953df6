-- The record of runs: what was begun, how it ended, and what that means for the next run.

-- name: begin_record
-- Records that a phase begins, or is about to be taken back.
INSERT INTO memsync.runs (verb, phase, memsync_version, options)
VALUES (%(verb)s, %(phase)s, %(version)s, %(options)s) RETURNING id;

-- name: last_run
-- The entry that was written last.
SELECT verb, outcome, options FROM memsync.runs ORDER BY id DESC LIMIT 1;

-- name: last_decisions
-- Each decision of the last run forward that took it; none if everything was taken back since.
SELECT (array_agg(unresolved ORDER BY id DESC) FILTER (WHERE unresolved IS NOT NULL))[1]
           AS unresolved,
       (array_agg(orphan_owners ORDER BY id DESC) FILTER (WHERE orphan_owners IS NOT NULL))[1]
           AS orphan_owners,
       (array_agg(existing ORDER BY id DESC) FILTER (WHERE existing IS NOT NULL))[1] AS existing,
       (array_agg(evidence ORDER BY id DESC) FILTER (WHERE evidence IS NOT NULL))[1] AS evidence
FROM (SELECT id, options ->> 'unresolved' AS unresolved,
             options ->> 'orphan_owners' AS orphan_owners, options ->> 'existing' AS existing,
             options ->> 'evidence' AS evidence
      FROM memsync.runs
      WHERE verb = 'run'
        AND id > coalesce((SELECT max(id) FROM memsync.runs
                           WHERE verb = 'rollback' AND outcome = 'done'
                             AND options ->> 'to' = 'start'), 0)) taken;

-- name: end_record
-- Records how it ended.
UPDATE memsync.runs
SET ended_at = clock_timestamp(), outcome = %(outcome)s, lock_waits = %(lock_waits)s,
    rows_filled = %(rows_filled)s, waited_s = %(waited_s)s
WHERE id = %(id)s AND outcome IS DISTINCT FROM 'done';

-- name: backfill_stands
-- Whether a backfill was finished, and not taken back since.
SELECT coalesce((SELECT verb = 'run' FROM memsync.runs
                 WHERE outcome = 'done' AND phase IN ('backfill', 'expand')
                   AND (verb = 'rollback' OR phase = 'backfill')
                 ORDER BY id DESC LIMIT 1), false) AS found;

-- name: note_archive_removed
-- Records the end of the way back, in the transaction that removes the archive.
UPDATE memsync.runs SET ended_at = clock_timestamp(), outcome = 'done'
WHERE id = (SELECT max(id) FROM memsync.runs WHERE verb = 'finalize');

-- name: note_user_id_dropped
-- Records that memsync drops user_id, and so archived it before. Runs in the same transaction.
UPDATE memsync.runs SET user_id_dropped = true
WHERE id = (SELECT max(id) FROM memsync.runs WHERE verb = 'run' AND phase = 'contract');

-- name: note_gates_passed
-- Records that the gates of this contract are open, and why.
UPDATE memsync.runs SET gates_passed = true, note = %(note)s
WHERE id = (SELECT max(id) FROM memsync.runs WHERE verb = 'run' AND phase = 'contract');

-- name: contract_was_begun
-- Whether contract passed its gates, but was neither finished nor taken back since.
SELECT coalesce((SELECT verb = 'run' AND NOT user_id_dropped FROM memsync.runs
                 WHERE phase = 'contract' AND (gates_passed OR verb = 'rollback')
                 ORDER BY id DESC LIMIT 1), false) AS begun;

-- name: note_method
-- Records which method the backfill that has just begun uses, and why.
UPDATE memsync.runs SET note = %(note)s
WHERE id = (SELECT max(id) FROM memsync.runs WHERE verb = 'run' AND phase = 'backfill');
