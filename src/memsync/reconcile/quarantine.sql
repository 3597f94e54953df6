-- Copies of points that apply removes or overwrites, complete with payload and vector.

-- name: quarantine_point
-- Keeps a complete copy of a point before it is removed or overwritten. Repeating it adds no copy.
INSERT INTO memsync.quarantine (plan_id, collection, point_id, state, payload, vector, reason)
VALUES (%(plan_id)s, %(collection)s, %(point_id)s, %(state)s, %(payload)s, %(vector)s, %(reason)s)
ON CONFLICT (plan_id, collection, point_id, state) DO NOTHING;
