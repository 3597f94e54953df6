-- Deciding, once, the persona of each (user, personality).

-- name: freeze_map
-- Decides the persona of each (user, personality), once, and keeps what the settings said. Pairs
-- whose messages have personas already are decided too, because the proof compares them. Returns
-- the users of messages that have neither a persona nor a decision: one scan answers both.
WITH pairs AS MATERIALIZED (
    SELECT p.user_id, p.personality_id, p.rows_count, p.has_open, p.has_since,
           o.persona_id AS override, d.persona_id AS fallback
    FROM (SELECT h.user_id, h.personality_id, count(*) AS rows_count,
                 bool_or(h.persona_id IS NULL AND k.history_id IS NULL) AS has_open,
                 bool_or(h.persona_id IS NULL AND k.history_id IS NULL AND {written_since})
                     AS has_since
          FROM conversation_history h
          LEFT JOIN ({archived_personas}) k ON k.history_id = h.id
          GROUP BY h.user_id, h.personality_id) p
    LEFT JOIN memsync.persona_override o USING (user_id, personality_id)
    LEFT JOIN memsync.persona_default d USING (user_id)
), decided AS (
    INSERT INTO memsync.persona_map
           (user_id, personality_id, persona_id, reason, override_persona_id, default_persona_id,
            rows_count)
    SELECT p.user_id, p.personality_id, coalesce(p.override, p.fallback),
           CASE WHEN p.override IS NOT NULL THEN 'override'
                WHEN c.user_id IS NOT NULL THEN 'created'
                ELSE 'default' END,
           p.override, p.fallback, p.rows_count
    FROM pairs p
    LEFT JOIN memsync.created_persona c
           ON c.user_id = p.user_id AND c.persona_id = p.fallback
    WHERE coalesce(p.override, p.fallback) IS NOT NULL
    ON CONFLICT (user_id, personality_id) DO NOTHING
)
SELECT DISTINCT p.user_id
FROM pairs p LEFT JOIN memsync.persona_map m USING (user_id, personality_id)
WHERE coalesce(p.override, p.fallback) IS NULL AND (p.has_since OR p.has_open AND m.user_id IS NULL)
ORDER BY p.user_id;

-- name: decide_since
-- Decides messages that were written after the last rollback of persona_id, where the settings name
-- another persona today than the map, which is older.
INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason)
SELECT h.id, h.user_id, coalesce(o.persona_id, d.persona_id), 'written-since'
FROM conversation_history h
JOIN memsync.persona_map m USING (user_id, personality_id)
LEFT JOIN memsync.persona_override o USING (user_id, personality_id)
LEFT JOIN memsync.persona_default d USING (user_id)
WHERE h.persona_id IS NULL AND {written_since}
  AND coalesce(o.persona_id, d.persona_id) <> m.persona_id
ON CONFLICT (history_id) DO NOTHING;

-- name: thaw_vanished
-- Forgets decisions whose persona was deleted since, so that they are taken again.
WITH gone AS (DELETE FROM memsync.row_archive a
              WHERE NOT EXISTS (SELECT FROM personas p WHERE p.id = a.persona_id))
DELETE FROM memsync.persona_map m
WHERE NOT EXISTS (SELECT FROM personas p WHERE p.id = m.persona_id);

-- name: analyze_decisions
-- Tells the planner how many decisions there are, so that a batch looks them up instead of hashing
-- them all.
ANALYZE memsync.persona_map, memsync.row_archive;

-- name: create_default_persona
-- Gives one user a default persona unless there is one by now; see memsync.create_default_persona.
SELECT memsync.create_default_persona(%(user_id)s) AS persona_id;

-- name: note_unresolved
-- Stores what this run does with users without a persona.
UPDATE memsync.backfill SET unresolved = %(unresolved)s WHERE fill = 'personas';

-- name: decided_rows
-- How many messages the map decides, plus those that only the archive decides.
SELECT (SELECT coalesce(sum(rows_count), 0) FROM memsync.persona_map)::bigint
     + (SELECT count(*) FROM memsync.row_archive a
        JOIN conversation_history h ON h.id = a.history_id
        LEFT JOIN memsync.persona_map m
               ON m.user_id = h.user_id AND m.personality_id = h.personality_id
        WHERE m.user_id IS NULL) AS total;

-- name: rows_of_vanished_personas
-- How many messages have a persona that was deleted. Counting is much quicker than clearing, and
-- the result is mostly 0.
SELECT count(*) AS total FROM conversation_history h
WHERE h.persona_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM personas p WHERE p.id = h.persona_id);

-- name: clear_vanished_personas
-- Empties persona_id in a range of blocks where its persona was deleted before the foreign key
-- existed.
UPDATE conversation_history h SET persona_id = NULL
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid AND h.persona_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM personas p WHERE p.id = h.persona_id);
