-- The journal of runs. See journal.py.

-- name: begin_repair
-- Notes the run of a plan, once.
INSERT INTO memsync.repair (run_id, target, actions, memsync_version)
VALUES (%(run_id)s, %(target)s, %(actions)s, %(version)s) ON CONFLICT DO NOTHING;

-- name: note_mark_of_repair
-- Notes the mark of a run's store that had none when its plan was made.
UPDATE memsync.repair
SET target = (target::jsonb || jsonb_build_object('mark', %(mark)s::text))::json
WHERE run_id = %(run_id)s AND target ->> 'mark' IS NULL;

-- name: count_repair
-- Notes how many actions of a run were done before by other hands, and how many are set aside.
UPDATE memsync.repair SET done_before = %(done_before)s, set_aside = %(set_aside)s
WHERE run_id = %(run_id)s;

-- name: repair_run
-- The stores that a run was for, and when it began.
SELECT target, begun_at FROM memsync.repair WHERE run_id = %(run_id)s;

-- name: repair_runs
-- The runs, the newest first: what each did, what of it is undone, and when it was last at work. What
-- was taken back counts as done, also where nobody knows whether it was. A table that an older
-- memsync made has no counts, and they are read by name so that it is listed.
SELECT r.run_id, r.target, r.who, r.memsync_version, r.begun_at, r.actions,
       coalesce((to_jsonb(r) ->> 'done_before')::int, 0) AS done_before,
       coalesce((to_jsonb(r) ->> 'set_aside')::int, 0) AS set_aside,
       j.done, j.undone, j.to_undo,
       greatest(r.begun_at, j.last_at) AS last_at
FROM memsync.repair r, LATERAL (
    SELECT count(coalesce(done_at, undone_at)) FILTER (WHERE action <> 'create') AS done,
           count(undone_at) FILTER (WHERE action <> 'create') AS undone,
           count(*) FILTER (WHERE action <> 'create' AND undone_at IS NULL) AS to_undo,
           max(greatest(intended_at, undone_at)) AS last_at
    FROM memsync.journal WHERE run_id = r.run_id) j
ORDER BY r.begun_at DESC, r.run_id;

-- name: intend
-- Notes what is about to happen to a point, or to a collection. What was undone begins anew.
INSERT INTO memsync.journal AS noted
    (run_id, collection, point_id, action, reason, source_collection, source_id, is_replaced,
     state_before, state_after)
VALUES (%(run_id)s, %(collection)s, %(point_id)s, %(action)s, %(reason)s, %(source_collection)s,
        %(source_id)s, %(is_replaced)s, %(state_before)s, %(state_after)s)
ON CONFLICT (run_id, collection, point_id) DO UPDATE
SET action = excluded.action, reason = excluded.reason,
    source_collection = excluded.source_collection, source_id = excluded.source_id,
    is_replaced = excluded.is_replaced,
    state_before = excluded.state_before, state_after = excluded.state_after,
    noted_before = CASE WHEN noted.done_at IS NULL OR noted.undone_at IS NOT NULL THEN NULL
                        ELSE noted.noted_before END,
    intended_at = clock_timestamp(), done_at = NULL, undone_at = NULL;

-- name: settle_intents
-- Notes that intents are carried out.
UPDATE memsync.journal SET done_at = clock_timestamp()
WHERE run_id = %(run_id)s AND collection = %(collection)s AND done_at IS NULL
  AND point_id = ANY(%(point_ids)s);

-- name: withdraw_intents
-- Forgets intents that were not carried out.
DELETE FROM memsync.journal
WHERE run_id = %(run_id)s AND collection = %(collection)s AND done_at IS NULL
  AND point_id = ANY(%(point_ids)s);

-- name: journal_of
-- What a run did to these points of a collection, and is not undone.
SELECT point_id, state_before, state_after, done_at IS NOT NULL AS is_done
FROM memsync.journal
WHERE run_id = %(run_id)s AND collection = %(collection)s AND undone_at IS NULL
  AND point_id = ANY(%(point_ids)s);

-- name: journal_backwards
-- What a run did and is not undone, before the row with this id; the newest first.
SELECT id, collection, point_id, action, reason, source_collection, source_id, state_before,
       state_after, intended_at, done_at IS NOT NULL AS is_done,
       noted_before IS NOT NULL AS knows_ledger
FROM memsync.journal
WHERE run_id = %(run_id)s AND undone_at IS NULL AND id < %(before)s
ORDER BY id DESC LIMIT %(limit)s;

-- name: journal_left
-- How many points a run changed for which there is no undo yet.
SELECT count(*) AS rows FROM memsync.journal WHERE run_id = %(run_id)s AND undone_at IS NULL;

-- name: require_session
-- Nothing; it fails where the session is lost.
SELECT 1;

-- name: settle_undone
-- Notes that rows are undone.
UPDATE memsync.journal SET undone_at = clock_timestamp() WHERE id = ANY(%(ids)s);

-- name: purge_repairs
-- Forgets the runs that were last at work so many days ago; their rows of the journal go along.
DELETE FROM memsync.repair r
WHERE r.begun_at < clock_timestamp() - make_interval(days => %(days)s)
  AND NOT EXISTS (
    SELECT FROM memsync.journal j
    WHERE j.run_id = r.run_id
      AND greatest(j.intended_at, j.undone_at) >= clock_timestamp() - make_interval(days => %(days)s));

-- name: purge_quarantine
-- Forgets the copies that are so many days old and whose runs are forgotten.
DELETE FROM memsync.quarantine q
WHERE q.quarantined_at < clock_timestamp() - make_interval(days => %(days)s)
  AND NOT EXISTS (SELECT FROM memsync.repair r WHERE r.run_id = q.plan_id);
