-- The questions of the checklist, beside those of the proof.

-- name: verify_owners
-- Messages whose persona does not belong to their user, where neither the map nor the archive
-- explains it: their user_id was changed after the fill, or their persona is wrong.
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
-- The user of each message, by its user_id.
SELECT user_id, personality_id, created_at FROM conversation_history;

-- fragment: speaker_owner
-- The same without user_id: the user in the archive, else the owner of its persona.
SELECT coalesce(a.user_id, p.owner_id) AS user_id, h.personality_id, h.created_at
FROM conversation_history h
JOIN personas p ON p.id = h.persona_id
LEFT JOIN memsync.row_archive a ON a.history_id = h.id;

-- name: verify_user_counts
-- Messages per (user, personality) at the freeze and now. The number from before the freeze can
-- only fall. `more` leaves out the last hour before it, because clocks differ, and transactions
-- were open. The caller names the fragment for {speaker}.
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

-- name: verify_keys
-- The foreign keys from persona_id to the personas.
SELECT k.conname AS name, k.convalidated AS valid, pg_get_constraintdef(k.oid) AS says
FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attname = 'persona_id'
WHERE k.contype = 'f' AND k.conrelid = to_regclass('conversation_history')
  AND k.confrelid = to_regclass('personas') AND k.conkey = ARRAY[a.attnum];

-- name: verify_trigger
-- Whether the sync trigger stands on the history, and fires for clients.
SELECT tgenabled IN ('O', 'A') AS fires FROM pg_trigger
WHERE tgrelid = to_regclass('conversation_history') AND tgname = 'memsync_sync_identity';
