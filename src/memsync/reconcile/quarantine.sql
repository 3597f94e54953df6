-- Whole copies of points that are removed or overwritten. See quarantine.py.

-- name: quarantine_point
-- Keeps a copy of a point before it is removed or overwritten. A copy of the same state gives way:
-- the point stands as it was, perhaps with another vector by now. But where a run leaves the state
-- as it is, the first copy stays until an undo, because the vector may be the run's own.
INSERT INTO memsync.quarantine AS kept
    (plan_id, collection, point_id, state, payload, vector, digest, reason)
VALUES (%(plan_id)s, %(collection)s, %(point_id)s, %(state)s, %(payload)s, %(vector)s, %(digest)s,
        %(reason)s)
ON CONFLICT (plan_id, collection, point_id, state) DO UPDATE
SET payload = excluded.payload, vector = excluded.vector, digest = excluded.digest,
    quarantined_at = clock_timestamp()
WHERE NOT EXISTS (
    SELECT FROM memsync.journal j
    WHERE j.run_id = kept.plan_id AND j.collection = kept.collection
      AND j.point_id = kept.point_id AND j.undone_at IS NULL AND j.state_before = j.state_after);

-- name: keep_point
-- Keeps a copy of a point that a relay replaces. It needs no right but INSERT, because a relay in
-- the app has the app's role.
INSERT INTO memsync.quarantine
    (plan_id, collection, point_id, state, payload, vector, digest, reason)
VALUES (%(plan_id)s, %(collection)s, %(point_id)s, %(state)s, %(payload)s, %(vector)s, %(digest)s,
        %(reason)s)
ON CONFLICT DO NOTHING;

-- name: may_keep_point
-- Whether the role may keep copies so; NULL where there is no such table.
SELECT has_table_privilege(to_regclass('memsync.quarantine'), 'INSERT') AS may;

-- name: quarantined_points
-- The copies of these points that a run keeps.
SELECT q.collection, q.point_id, q.state, q.payload::text AS payload, q.vector, q.digest
FROM memsync.quarantine q
JOIN unnest(%(point_ids)s::text[], %(states)s::text[]) AS asked(point_id, state)
    USING (point_id, state)
WHERE q.plan_id = %(run_id)s AND q.collection = %(collection)s;
