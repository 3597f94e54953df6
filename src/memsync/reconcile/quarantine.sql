-- Points that were taken out of the app's sight, kept whole.

-- name: quarantine_point
-- Keeps a point whole before it is removed or overwritten. Repeating it keeps one copy.
INSERT INTO memsync.quarantine (plan_id, collection, point_id, state, payload, vector, reason)
VALUES (%(plan_id)s, %(collection)s, %(point_id)s, %(state)s, %(payload)s, %(vector)s, %(reason)s)
ON CONFLICT (plan_id, collection, point_id, state) DO NOTHING;
