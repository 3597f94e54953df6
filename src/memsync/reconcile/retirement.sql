-- Collections that the layout in force no longer reads, on their way to the quarantine and back.

-- name: unfinished_retirement
-- The run that began to remove collections and did not end.
SELECT run_id FROM memsync.retired WHERE dropped_at IS NULL AND restored_at IS NULL
ORDER BY begun_at LIMIT 1;

-- name: begun_retirements
-- The collections that this run began to remove and has not marked as removed.
SELECT collection, points FROM memsync.retired WHERE run_id = %(run_id)s AND dropped_at IS NULL
ORDER BY collection;

-- name: forget_moved
-- Forgets the copies that this run kept of a collection before: it was not removed then, or it is
-- back. What was removed from it since would come back with the others.
DELETE FROM memsync.quarantine q USING memsync.retired r
WHERE r.run_id = %(run_id)s AND r.collection = %(collection)s
  AND (r.points IS NULL OR r.restored_at IS NOT NULL)
  AND q.plan_id = r.run_id AND q.collection = r.collection AND q.reason = 'retired';

-- name: begin_retirement
-- Notes the form of a collection before its points are moved. A run that goes on notes it anew. What
-- was counted stays, unless it is back: the collection may have been removed, and made anew since.
INSERT INTO memsync.retired (run_id, collection, dims, indexes)
VALUES (%(run_id)s, %(collection)s, %(dims)s, %(indexes)s)
ON CONFLICT (run_id, collection) DO UPDATE SET dims = excluded.dims, indexes = excluded.indexes,
    points = CASE WHEN retired.restored_at IS NULL THEN retired.points END,
    begun_at = clock_timestamp(), dropped_at = NULL, restored_at = NULL;

-- name: count_moved
-- Notes how many points were moved, before their collection is dropped.
UPDATE memsync.retired SET points = %(points)s
WHERE run_id = %(run_id)s AND collection = %(collection)s;

-- name: end_retirement
-- Notes that the collection is gone.
UPDATE memsync.retired SET dropped_at = clock_timestamp()
WHERE run_id = %(run_id)s AND collection = %(collection)s;

-- name: retired_collections
-- Collections that were removed and have not come back, the last one first. in_quarantine counts
-- the points that the quarantine still has.
SELECT r.run_id, r.collection, r.dims, r.indexes, r.begun_at, coalesce(r.points, 0) AS points,
    (SELECT count(DISTINCT q.point_id) FROM memsync.quarantine q
     WHERE q.plan_id = r.run_id AND q.collection = r.collection AND q.reason = 'retired')
        AS in_quarantine
FROM memsync.retired r
WHERE r.restored_at IS NULL AND (r.dropped_at IS NOT NULL OR r.points IS NOT NULL)
ORDER BY r.begun_at DESC, r.collection;

-- name: retired_in_all
-- Runs whose collections have not come back, with the numbers of collections and points.
SELECT run_id, count(*) AS collections, sum(points)::bigint AS points
FROM memsync.retired WHERE dropped_at IS NOT NULL AND restored_at IS NULL
GROUP BY run_id ORDER BY min(begun_at);

-- name: kept_in_all
-- How many points of such collections the quarantine still has, by run.
SELECT q.plan_id AS run_id, count(DISTINCT (q.collection, q.point_id)) AS points
FROM memsync.quarantine q
JOIN memsync.retired r ON r.run_id = q.plan_id AND r.collection = q.collection
WHERE q.reason = 'retired' AND r.dropped_at IS NOT NULL AND r.restored_at IS NULL
GROUP BY q.plan_id;

-- name: retired_page
-- The next points of a collection that was removed, each as it was last.
SELECT DISTINCT ON (point_id) point_id, state, payload::text AS payload, vector, digest
FROM memsync.quarantine
WHERE plan_id = %(run_id)s AND collection = %(collection)s AND reason = 'retired'
    AND point_id > %(after)s
ORDER BY point_id, id DESC LIMIT %(limit)s;

-- name: retired_states
-- The states of these points of a collection that is about to be removed, each as it was kept last.
SELECT DISTINCT ON (point_id) point_id, state
FROM memsync.quarantine
WHERE plan_id = %(run_id)s AND collection = %(collection)s AND reason = 'retired'
    AND point_id = ANY(%(point_ids)s)
ORDER BY point_id, id DESC;

-- name: end_restoration
-- Notes that the collection is back.
UPDATE memsync.retired SET restored_at = clock_timestamp()
WHERE run_id = %(run_id)s AND collection = %(collection)s;
