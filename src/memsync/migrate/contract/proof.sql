-- The proof of every message's persona, independent of the fill.

-- name: verify_counts
-- The counts of the checklist: rows, personas in use, rows without one, rows with one unknown.
SELECT count(*) AS rows_total,
       count(DISTINCT h.persona_id) AS unique_personas,
       count(*) FILTER (WHERE h.persona_id IS NULL) AS null_persona_ids,
       count(*) FILTER (WHERE h.persona_id IS NOT NULL AND p.id IS NULL) AS unknown_persona_ids
FROM conversation_history h LEFT JOIN personas p ON p.id = h.persona_id;

-- name: verify_rows
-- Every row whose persona is not what the settings say, recomputed here without the fill's own
-- decision: the map's answer counts only where the settings were changed after the freeze. Rows
-- with a decision of their own must have it, and evidence must be of the row's user.
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
      -- Evidence speaks for a user's own personas only.
      WHEN a.reason = 'evidence'
           THEN h.persona_id <> a.persona_id OR p.owner_id IS DISTINCT FROM h.user_id
      WHEN a.history_id IS NOT NULL
           THEN h.persona_id <> a.persona_id OR h.user_id <> a.user_id
      -- Not of the map, or of after it: what the trigger decided is in the archive, so an app that
      -- knows both ids wrote this. Its persona must be one of the user's.
      WHEN s.user_id IS NULL OR h.created_at >= s.decided_at
           THEN p.owner_id IS DISTINCT FROM h.user_id
      WHEN s.unchanged THEN h.persona_id IS DISTINCT FROM coalesce(s.override_now, s.default_now)
      ELSE h.persona_id <> s.frozen END
ORDER BY h.id
LIMIT %(limit)s;

-- name: verify_drift
-- How many decisions of the map today's settings would take differently (no fault: they moved on).
SELECT count(*) AS pairs
FROM memsync.persona_map m
LEFT JOIN memsync.persona_override o
       ON o.user_id = m.user_id AND o.personality_id = m.personality_id
LEFT JOIN memsync.persona_default d ON d.user_id = m.user_id
WHERE coalesce(o.persona_id, d.persona_id) IS DISTINCT FROM m.persona_id;

-- name: verify_owners
-- Messages whose persona is not one of their user's, and that neither the map nor the archive
-- explains: their user_id was changed after the fill, or their persona is wrong.
SELECT h.id, h.user_id, h.persona_id, p.owner_id, count(*) OVER () AS total
FROM conversation_history h
JOIN personas p ON p.id = h.persona_id
LEFT JOIN memsync.persona_map m USING (user_id, personality_id)
LEFT JOIN memsync.row_archive a ON a.history_id = h.id AND a.user_id = h.user_id
WHERE p.owner_id IS DISTINCT FROM h.user_id
  AND m.persona_id IS DISTINCT FROM h.persona_id
  AND a.persona_id IS DISTINCT FROM h.persona_id
ORDER BY h.id LIMIT %(limit)s;

-- fragment: speaker_column
-- Whose each message is, by its user_id.
SELECT user_id, personality_id, created_at FROM conversation_history;

-- fragment: speaker_owner
-- The same without user_id: the owner of its persona, unless the archive knows better.
SELECT coalesce(a.user_id, p.owner_id) AS user_id, h.personality_id, h.created_at
FROM conversation_history h
JOIN personas p ON p.id = h.persona_id
LEFT JOIN memsync.row_archive a ON a.history_id = h.id;

-- name: verify_user_counts
-- Messages per (user, personality) at the freeze and now. Those of before it can only have become
-- fewer; `more` leaves out the hour before it, for clocks that differ and transactions that were
-- open. The caller names the fragment for {speaker}.
WITH now AS (
    SELECT m.user_id, m.personality_id,
           count(*) FILTER (WHERE s.created_at < m.decided_at AT TIME ZONE 'UTC') AS rows_before,
           count(*) FILTER (WHERE s.created_at < m.decided_at AT TIME ZONE 'UTC'
                                                 - interval '1 hour') AS rows_sure
    FROM memsync.persona_map m JOIN ({speaker}) s USING (user_id, personality_id)
    GROUP BY m.user_id, m.personality_id
)
SELECT count(DISTINCT user_id) AS users, count(*) AS pairs,
       coalesce(sum(rows_count), 0)::bigint AS rows_then,
       coalesce(sum(rows_before), 0)::bigint AS rows_now,
       count(DISTINCT user_id) FILTER (WHERE coalesce(rows_before, 0) < rows_count) AS users_fewer,
       count(*) FILTER (WHERE now.rows_before IS NULL) AS pairs_silent,
       coalesce((array_agg(format('%%s with personality %%s: %%s then, %%s now', user_id,
                                  personality_id, rows_count, rows_sure) ORDER BY user_id)
                 FILTER (WHERE rows_sure > rows_count))[:20], ARRAY[]::text[]) AS more
FROM memsync.persona_map LEFT JOIN now USING (user_id, personality_id);

-- name: verify_wanted
-- Whether the last that was done about a phase is that it was run, not that it was taken back.
SELECT coalesce((SELECT verb = 'run' FROM memsync.runs WHERE phase = %(phase)s
                 AND outcome = 'done' ORDER BY id DESC LIMIT 1), false) AS wanted;

-- name: verify_keys
-- The foreign keys from persona_id to the personas.
SELECT k.conname AS name, k.convalidated AS valid, pg_get_constraintdef(k.oid) AS says
FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attname = 'persona_id'
WHERE k.contype = 'f' AND k.conrelid = to_regclass('conversation_history')
  AND k.confrelid = to_regclass('personas') AND k.conkey = ARRAY[a.attnum];

-- name: verify_trigger
-- Whether our trigger stands on the history, and fires for clients.
SELECT tgenabled IN ('O', 'A') AS fires FROM pg_trigger
WHERE tgrelid = to_regclass('conversation_history') AND tgname = 'memsync_sync_identity';
