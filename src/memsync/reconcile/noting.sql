-- Keeps what the ledger of memories said before a repair, for its undo. See noting.py.

-- name: keep_noted
-- Keeps with the intents of a run what the ledger says of their points, and of other points of the
-- same exchanges there, which give way when the memory is noted (`supersede_memories`). A note
-- that the run has kept stays, also of a point that it is about to change once more.
UPDATE memsync.journal j
SET noted_before = (
    SELECT coalesce(jsonb_agg(said.entry), '[]')
    FROM (SELECT to_jsonb(m) AS entry FROM memsync.memories m
          WHERE m.collection = j.collection AND m.point_id = j.point_id
          UNION ALL
          SELECT to_jsonb(m) FROM memsync.memories m
          WHERE m.collection = j.collection AND m.anchor_id = asked.anchor_id
            AND m.point_id <> j.point_id AND m.state = 'live') said)
FROM unnest(%(point_ids)s::text[], %(anchor_ids)s::uuid[]) AS asked(point_id, anchor_id)
WHERE j.run_id = %(run_id)s AND j.collection = %(collection)s AND j.point_id = asked.point_id
  AND j.noted_before IS NULL;

-- name: noted_since_intent
-- The points that a run was to write, that it has not settled, and that were written down since in the
-- ledger, or as done by another run.
SELECT j.point_id
FROM memsync.journal j
WHERE j.run_id = %(run_id)s AND j.collection = %(collection)s
  AND j.point_id = ANY(%(point_ids)s)
  AND j.state_after IS NOT NULL AND j.done_at IS NULL AND j.undone_at IS NULL
  AND (EXISTS (SELECT FROM memsync.memories m
               WHERE m.collection = j.collection AND m.point_id = j.point_id
                 AND m.noted_at > j.intended_at)
       OR EXISTS (SELECT FROM memsync.journal other
                  WHERE other.collection = j.collection AND other.point_id = j.point_id
                    AND other.run_id <> j.run_id AND other.done_at > j.intended_at
                    AND other.undone_at IS NULL));

-- name: take_out_noted
-- Takes out what the ledger says of points that are as they were before a run. Of a point that stands
-- what was noted or archived after the run stays, and so does what another repair noted when it
-- removed one.
DELETE FROM memsync.memories m
USING memsync.journal j
WHERE j.id = ANY(%(ids)s) AND j.done_at IS NOT NULL AND j.noted_before IS NOT NULL
  AND m.collection = j.collection AND m.point_id = j.point_id
  AND (j.state_before IS NULL
       OR (m.noted_at <= j.done_at AND (m.state = 'live' OR j.state_after IS NULL)))
  AND (NOT m.removed OR j.state_after IS NULL)
RETURNING j.id, m.state;

-- name: bring_noted
-- Brings back what the ledger said before, of points of which it says nothing now. A memory that is
-- archived by now stays so.
INSERT INTO memsync.memories
    (collection, point_id, anchor_id, persona_id, personality_id, channel_id, created_at_ms, source,
     stored, state, removed)
SELECT m.collection, m.point_id, m.anchor_id, m.persona_id, m.personality_id, m.channel_id,
       m.created_at_ms, m.source, m.stored,
       CASE WHEN j.id = ANY(%(archived)s) AND m.point_id = j.point_id THEN 'archived'
            ELSE m.state END,
       m.removed
FROM memsync.journal j, jsonb_populate_recordset(NULL::memsync.memories, j.noted_before) m
WHERE j.id = ANY(%(ids)s)
ON CONFLICT DO NOTHING;
