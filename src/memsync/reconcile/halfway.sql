-- Whether a change of the layout was begun and did not end. See halfway.py.

-- name: last_of_layout
-- Why the layout is the one in force, and what was begun since it was decided: whether a collection
-- came back after the last retirement began, and whether a retirement did not end.
SELECT l.why,
       coalesce(max(r.restored_at) > greatest(max(r.begun_at), l.decided_at), false) AS came_back,
       coalesce(bool_or(r.begun_at > l.decided_at AND r.dropped_at IS NULL
                        AND r.restored_at IS NULL), false) AS is_retiring
FROM memsync.layout l LEFT JOIN memsync.retired r ON true
GROUP BY l.singleton;

-- name: retired_and_gone
-- Those of these collections that were last removed, and are not noted as back, with that run.
SELECT collection, run_id FROM (
    SELECT DISTINCT ON (collection) collection, run_id, dropped_at, restored_at
    FROM memsync.retired WHERE collection = ANY(%(collections)s)
    ORDER BY collection, begun_at DESC) last
WHERE dropped_at IS NOT NULL AND restored_at IS NULL;

-- name: have_been_retired
-- Whether one of these points was in the collection when the run retired it.
SELECT EXISTS (
    SELECT FROM memsync.quarantine
    WHERE plan_id = %(run_id)s AND collection = %(collection)s AND reason = 'retired'
      AND point_id = ANY(%(point_ids)s)) AS was;

-- name: replaced_in_old_collections
-- Whether a point of a collection that the shared layout does not read was replaced since then:
-- only the way back does that.
SELECT EXISTS (
    SELECT FROM memsync.quarantine q, memsync.layout l
    WHERE q.reason = 'replaced' AND q.collection <> %(shared)s
      AND q.quarantined_at > l.decided_at) AS was;
