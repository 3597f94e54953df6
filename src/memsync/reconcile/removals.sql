-- What repairs have removed. See removals.py.

-- name: removed_since
-- The points that other runs than this one have removed since then, or were about to remove, and that
-- no undo has brought back; each as it was last. A point whose memory another one has is left out.
SELECT DISTINCT ON (j.collection, j.point_id)
       j.collection, j.point_id, j.run_id, j.intended_at AS at, q.payload::text AS payload
FROM memsync.journal j
JOIN memsync.quarantine q ON q.plan_id = j.run_id AND q.collection = j.collection
    AND q.point_id = j.point_id AND q.state = j.state_before
WHERE j.action = 'remove' AND NOT j.is_replaced AND j.undone_at IS NULL
  AND j.intended_at > %(since)s AND j.run_id IS DISTINCT FROM %(besides)s
ORDER BY j.collection, j.point_id, j.intended_at DESC;
