-- The fill in place, forward and back, its checkpoint, the archive.

-- fragment: archived_personas
-- The personas that the archive knows of single rows, as far as they still exist: they count
-- before the map's, in place and in a copy.
SELECT a.history_id, a.persona_id
FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id;

-- fragment: archived_persona
-- The same of the row h.
SELECT k.persona_id FROM ({archived_personas}) k WHERE k.history_id = h.id;

-- fragment: in_this_part
-- A part of the rows of every page, by their numbers in it.
get_byte(tidsend(h.ctid), 5) %% %(parts)s = %(part)s;

-- name: fill_by_index
-- For this transaction: what decides a row is looked up. The planner cannot know how many rows of a
-- range are left, nor how many the archive has by now, and would read one of them for each of the
-- other.
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
-- Fills user_id in one range of blocks: the owner of the persona, unless the archive knows better.
UPDATE conversation_history h
SET user_id = coalesce((SELECT a.user_id FROM memsync.row_archive a
                        JOIN users u ON u.id = a.user_id WHERE a.history_id = h.id),
                       p.owner_id)
FROM personas p
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND {in_this_part}
  AND h.user_id IS NULL AND p.id = h.persona_id;

-- name: vacuum_history
-- Frees the space of the rows that the fill replaced, so that the next batches use it again, in the
-- indexes too: to leave those to the end was tried, and their pages split, which costs more.
-- TRUNCATE would take the strongest lock; SKIP_LOCKED gives way to whoever vacuums already.
VACUUM (TRUNCATE false, SKIP_LOCKED) conversation_history;

-- name: messages_without_user
-- How many messages no user could be found for on the way back, and the first of them.
SELECT count(*) AS total, min(id::text) AS first FROM conversation_history
WHERE user_id IS NULL;

-- name: analyze_history
-- Lets the planner know that no message is without a persona, so that it looks in the index.
ANALYZE conversation_history (persona_id);
