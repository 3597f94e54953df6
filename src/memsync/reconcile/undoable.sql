-- Whether the runs of apply can still be undone. See undoable.py.

-- name: may_see_repairs
-- Whether the tables of repairs stand, and the role may read them. The quarantine holds people's
-- words, so a role that only checks may not.
SELECT bool_and(to_regclass(t) IS NOT NULL) AS stand,
       bool_and(coalesce(has_table_privilege(to_regclass(t), 'SELECT'), false)) AS may
FROM unnest(ARRAY['memsync.repair', 'memsync.journal', 'memsync.quarantine', 'memsync.retired']) t;

-- name: kept_runs
-- The runs whose time is not over and that are not wholly undone, the newest first: how many points they changed, and
-- of how many of these the copy, or the vector of a copy that needs one, is missing. copies counts
-- those that there are.
SELECT r.run_id, r.target, count(*) AS points, count(q.id) AS copies,
       count(*) FILTER (WHERE j.state_before IS NOT NULL
                          AND (q.id IS NULL OR (q.vector IS NULL AND j.action <> 'patch'))) AS missing
FROM memsync.repair r
JOIN memsync.journal j ON j.run_id = r.run_id AND j.undone_at IS NULL AND j.action <> 'create'
LEFT JOIN memsync.quarantine q ON q.plan_id = j.run_id AND q.collection = j.collection
    AND q.point_id = j.point_id AND q.state = j.state_before
WHERE r.begun_at >= clock_timestamp() - make_interval(days => %(days)s)
   OR EXISTS (
    SELECT FROM memsync.journal l
    WHERE l.run_id = r.run_id
      AND greatest(l.intended_at, l.undone_at) >= clock_timestamp() - make_interval(days => %(days)s))
GROUP BY r.run_id ORDER BY r.begun_at DESC, r.run_id;

-- name: kept_copies
-- The next copies that an undo of the run needs.
SELECT q.collection, q.point_id, q.state, q.payload::text AS payload, q.vector, q.digest
FROM memsync.quarantine q
JOIN memsync.journal j ON j.run_id = q.plan_id AND j.collection = q.collection
    AND j.point_id = q.point_id AND j.state_before = q.state AND j.undone_at IS NULL
WHERE q.plan_id = %(run_id)s
  AND (q.collection, q.point_id, q.state) > (%(collection)s, %(point_id)s, %(state)s)
ORDER BY q.collection, q.point_id, q.state LIMIT %(limit)s;

-- fragment: needed
-- The collection that an undo needs: an old point goes there, or the original of a copy is there.
coalesce(j.source_collection, j.collection);

-- fragment: needs_it
-- Whether an undo of this point needs a collection.
(j.state_before IS NOT NULL OR j.source_collection IS NOT NULL);

-- fragment: is_retired
-- Whether that collection was retired, and has not come back.
EXISTS (SELECT FROM memsync.retired x
        WHERE x.collection = {needed} AND x.dropped_at IS NOT NULL AND x.restored_at IS NULL);

-- name: kept_collections
-- The collections that an undo of the run needs, with the sizes of the vectors that it writes there
-- and how many points each size has. Size 0: none is written, or a payload is all that is.
-- A collection that was retired comes back with the layout.
SELECT {needed} AS collection,
       CASE WHEN j.action = 'patch' THEN 0 ELSE coalesce(cardinality(q.vector), 0) END AS size,
       count(*) AS points
FROM memsync.journal j
LEFT JOIN memsync.quarantine q ON q.plan_id = j.run_id AND q.collection = j.collection
    AND q.point_id = j.point_id AND q.state = j.state_before
WHERE j.run_id = %(run_id)s AND j.undone_at IS NULL AND {needs_it} AND NOT {is_retired}
GROUP BY 1, 2;

-- name: retired_of_run
-- The collections that an undo of the run needs and that are in the quarantine, with how many points
-- each.
SELECT {needed} AS collection, count(*) AS points
FROM memsync.journal j
WHERE j.run_id = %(run_id)s AND j.undone_at IS NULL AND {needs_it} AND {is_retired}
GROUP BY 1 ORDER BY 1;

-- name: copies_of_unknown_points
-- How many copies a run made before the journal noted of which points.
SELECT count(*) AS points FROM memsync.journal
WHERE run_id = %(run_id)s AND undone_at IS NULL AND action = 'copy' AND source_id IS NULL;

-- name: traces_of_run
-- The next memories that a run made, or wrote anew, whose rows are gone by now: the digest of what
-- each says, and the payload that it had; NULL: there was none, or it is lost.
SELECT j.id, j.collection, j.point_id, encode(m.stored, 'hex') AS stored, q.payload::text AS payload
FROM memsync.journal j
JOIN memsync.memories m USING (collection, point_id)
LEFT JOIN memsync.quarantine q ON q.plan_id = j.run_id AND q.collection = j.collection
    AND q.point_id = j.point_id AND q.state = j.state_before
WHERE j.run_id = %(run_id)s AND j.undone_at IS NULL AND j.action IN ('put', 'patch')
  AND j.state_before IS DISTINCT FROM j.state_after AND NOT {has_exchange} AND j.id > %(after)s
ORDER BY j.id LIMIT %(limit)s;
