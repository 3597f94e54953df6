-- The fill in place, forward and on rollback.

-- fragment: archived_personas
-- The personas that the archive holds for single rows, if they still exist. They win over the map,
-- in place and in a shadow table.
SELECT a.history_id, a.persona_id
FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id;

-- fragment: archived_persona
-- The same for the row h.
SELECT k.persona_id FROM ({archived_personas}) k WHERE k.history_id = h.id;

-- fragment: in_this_part
-- One part of the rows of every page, by their numbers in the page.
get_byte(tidsend(h.ctid), 5) %% %(parts)s = %(part)s;

-- name: fill_by_index
-- In this transaction, plans look up what decides a row. The planner cannot know how many rows of a
-- range are left, nor how many the archive has by now, and would scan one of them for each row of
-- the other.
SELECT set_config('enable_seqscan', 'off', true);

-- name: fill_personas
-- Fills persona_id in a part of a range of blocks: from the archive, else from the map.
UPDATE conversation_history h
SET persona_id = coalesce(({archived_persona}), m.persona_id)
FROM memsync.persona_map m
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND {in_this_part}
  AND h.persona_id IS NULL
  AND m.user_id = h.user_id AND m.personality_id = h.personality_id;

-- name: fill_archived
-- Fills persona_id of the rows of a range that only the archive decides.
UPDATE conversation_history h
SET persona_id = ({archived_persona})
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND h.persona_id IS NULL
  AND ({archived_persona}) IS NOT NULL;

-- name: fill_users
-- Fills user_id in one range of blocks: from the archive, else with the owner of the persona.
UPDATE conversation_history h
SET user_id = coalesce((SELECT a.user_id FROM memsync.row_archive a
                        JOIN users u ON u.id = a.user_id WHERE a.history_id = h.id),
                       p.owner_id)
FROM personas p
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND {in_this_part}
  AND h.user_id IS NULL AND p.id = h.persona_id;

-- name: vacuum_history
-- Frees the space of the rows that the fill replaced, so that the next batches use it again. The
-- indexes are vacuumed too: leaving them to the end was tried, and their pages split, which costs
-- more. TRUNCATE would take an ACCESS EXCLUSIVE lock; SKIP_LOCKED gives way to a VACUUM that is
-- already running. https://www.postgresql.org/docs/current/sql-vacuum.html
VACUUM (TRUNCATE false, SKIP_LOCKED) conversation_history;

-- name: messages_without_user
-- How many messages have no user after the rollback's fill, and the first of them.
SELECT count(*) AS total, min(id::text) AS first FROM conversation_history
WHERE user_id IS NULL;

-- name: analyze_history
-- Tells the planner that no message is without a persona, so that it uses the index.
ANALYZE conversation_history (persona_id);
