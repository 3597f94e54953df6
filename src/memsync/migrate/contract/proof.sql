-- The proof of every message's persona, independent of the fill.

-- name: verify_counts
-- The counts of the checklist: rows, personas in use, rows without one, rows with an unknown one.
SELECT count(*) AS rows_total,
       count(DISTINCT h.persona_id) AS unique_personas,
       count(*) FILTER (WHERE h.persona_id IS NULL) AS null_persona_ids,
       count(*) FILTER (WHERE h.persona_id IS NOT NULL AND p.id IS NULL) AS unknown_persona_ids
FROM conversation_history h LEFT JOIN personas p ON p.id = h.persona_id;

-- name: verify_rows
-- Every row whose persona is wrong, recomputed from the settings without the fill's own statement.
-- The map counts only where the settings were changed after the freeze. A row with a decision of
-- its own must have that persona, and evidence must name a persona of the row's user.
WITH settings AS (
    SELECT u.id AS user_id, m.personality_id, m.persona_id AS frozen,
           m.decided_at AT TIME ZONE 'UTC' AS decided_at,
           o.persona_id AS override_now, d.persona_id AS default_now,
           (o.persona_id, d.persona_id) IS NOT DISTINCT FROM
           (m.override_persona_id, m.default_persona_id) AS unchanged
    FROM memsync.persona_map m
    JOIN users u ON u.id = m.user_id
    LEFT JOIN memsync.persona_override o
           ON o.user_id = m.user_id AND o.personality_id = m.personality_id
    LEFT JOIN memsync.persona_default d ON d.user_id = m.user_id
)
SELECT h.id, h.user_id, h.personality_id, h.persona_id,
       CASE WHEN a.reason <> 'evidence' THEN 'the settings say'
            WHEN h.persona_id <> a.persona_id THEN 'its evidence says'
            WHEN a.reason = 'evidence' THEN 'which is not its user''s; the settings say'
            ELSE 'the settings say' END AS by_whom,
       CASE WHEN a.user_id = h.user_id AND (a.reason <> 'evidence' OR h.persona_id <> a.persona_id)
                 THEN a.persona_id
            WHEN s.unchanged THEN coalesce(s.override_now, s.default_now)
            ELSE s.frozen END AS expected,
       count(*) OVER () AS wrong_total
FROM conversation_history h
LEFT JOIN settings s ON s.user_id = h.user_id AND s.personality_id = h.personality_id
LEFT JOIN memsync.row_archive a ON a.history_id = h.id
LEFT JOIN personas p ON p.id = h.persona_id
WHERE h.persona_id IS NOT NULL
  AND CASE
      -- Evidence counts only for personas of the row's user.
      WHEN a.reason = 'evidence'
           THEN h.persona_id <> a.persona_id OR p.owner_id IS DISTINCT FROM h.user_id
      WHEN a.history_id IS NOT NULL
           THEN h.persona_id <> a.persona_id OR h.user_id <> a.user_id
      -- The row is not in the map, or is newer. The trigger's own decisions are in the archive, so
      -- an app that knows both ids wrote this row. Its persona must be one of the user's.
      WHEN s.user_id IS NULL OR h.created_at >= s.decided_at
           THEN p.owner_id IS DISTINCT FROM h.user_id
      WHEN s.unchanged THEN h.persona_id IS DISTINCT FROM coalesce(s.override_now, s.default_now)
      ELSE h.persona_id <> s.frozen END
ORDER BY h.id
LIMIT %(limit)s;

-- name: verify_drift
-- How many decisions of the map differ from today's settings. No fault: settings may change.
SELECT count(*) AS pairs
FROM memsync.persona_map m
LEFT JOIN memsync.persona_override o
       ON o.user_id = m.user_id AND o.personality_id = m.personality_id
LEFT JOIN memsync.persona_default d ON d.user_id = m.user_id
WHERE coalesce(o.persona_id, d.persona_id) IS DISTINCT FROM m.persona_id;
