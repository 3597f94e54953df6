-- Messages that had a persona before memsync came: which of them the proof would refuse, and what
-- becomes of those.

-- fragment: decisions_none
-- The frozen decisions, before there are any.
SELECT NULL::uuid AS user_id, NULL::uuid AS personality_id, NULL::uuid AS persona_id,
       NULL::uuid AS override_persona_id, NULL::uuid AS default_persona_id,
       NULL::timestamptz AS decided_at WHERE false;

-- fragment: decisions_kept
-- The frozen decisions.
SELECT user_id, personality_id, persona_id, override_persona_id, default_persona_id, decided_at
FROM memsync.persona_map;

-- fragment: archived_none
-- The messages with a decision of their own, before there are any.
SELECT NULL::uuid AS history_id WHERE false;

-- fragment: archived_kept
-- The messages with a decision of their own.
SELECT history_id FROM memsync.row_archive;

-- fragment: refused
-- The messages whose persona is neither what the settings say nor a decision of their own; where
-- the settings say none, those of another user's persona, and those of users who get a default
-- persona. `expected` is the persona that the proof asks for. One that does not exist is decided
-- anew anyway.
SELECT h.id, h.ctid AS place, h.user_id, h.persona_id, e.expected
FROM conversation_history h
JOIN personas p ON p.id = h.persona_id
LEFT JOIN ({override}) o ON o.user_id = h.user_id AND o.personality_id = h.personality_id
LEFT JOIN ({default}) d ON d.user_id = h.user_id
LEFT JOIN ({decisions}) m ON m.user_id = h.user_id AND m.personality_id = h.personality_id
CROSS JOIN LATERAL (SELECT CASE
    WHEN (o.persona_id, d.persona_id) IS DISTINCT FROM (m.override_persona_id, m.default_persona_id)
         AND m.user_id IS NOT NULL THEN m.persona_id
    ELSE coalesce(o.persona_id, d.persona_id) END AS expected) e
WHERE NOT EXISTS (SELECT FROM ({archived}) a WHERE a.history_id = h.id)
  AND CASE WHEN h.created_at >= m.decided_at AT TIME ZONE 'UTC'
                THEN p.owner_id IS DISTINCT FROM h.user_id
           WHEN e.expected IS NOT NULL THEN h.persona_id <> e.expected
           ELSE p.owner_id IS DISTINCT FROM h.user_id
                OR EXISTS (SELECT FROM conversation_history n
                           LEFT JOIN ({override}) c
                                  ON c.user_id = n.user_id AND c.personality_id = n.personality_id
                           WHERE n.user_id = h.user_id AND n.persona_id IS NULL
                             AND c.persona_id IS NULL) END;

-- name: count_refused
-- How many there are; of them those for which the settings say no persona, with their users; and
-- the first of them.
SELECT count(*) AS total, count(*) FILTER (WHERE expected IS NULL) AS unsaid,
       coalesce(array_agg(DISTINCT user_id::text) FILTER (WHERE expected IS NULL), '{}') AS users,
       min(id::text) AS first
FROM ({refused}) r;

-- name: keep_existing
-- Archives their personas as decisions of their own, which fill and proof obey.
INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason)
SELECT id, user_id, persona_id, 'kept' FROM ({refused}) r
ON CONFLICT (history_id) DO NOTHING;

-- name: decide_existing
-- Gives those in a range of blocks the persona that is expected, and archives the one that they
-- had.
WITH wrong AS MATERIALIZED (
    SELECT id, persona_id, expected FROM ({refused}) r
    WHERE r.place >= %(start)s::tid AND r.place < %(stop)s::tid),
archived AS (
    INSERT INTO memsync.column_archive (column_name, row_id, value)
    SELECT 'conversation_history.persona_id', id, to_jsonb(persona_id) FROM wrong
    ON CONFLICT (column_name, row_id) DO NOTHING)
UPDATE conversation_history h SET persona_id = w.expected
FROM wrong w WHERE h.id = w.id AND h.persona_id = w.persona_id;
