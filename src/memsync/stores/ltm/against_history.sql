-- Compares the history with the ledger, in one pass over both.

-- fragment: is_of_these_rows
-- Whether what the ledger has of an exchange was written down when the rows were as they are.
m.source IS NOT DISTINCT FROM {digest_of_rows};

-- name: half_against_ledger
-- The exchanges of one half of the threads, and what the ledger has of them. `noted` counts
-- memories of these exchanges, `without_memory` exchanges that the ledger does not have. `apart` is
-- how many are not as the ledger has them: it has none, though the personality is not `without`
-- memories, or one that was made of other rows, or under another id. `anchor_ids` and `point_ids`
-- are those of the first of these. What agrees keeps no id here, because all of it waits to be
-- counted. OFFSET keeps the planner from computing each digest once for every use of `kind`.
WITH pairs AS MATERIALIZED (
    SELECT CASE WHEN kind <> 'same' THEN anchor_id END AS anchor_id,
           CASE WHEN kind <> 'same' THEN point_id END AS point_id, kind
    FROM (SELECT e.anchor_id, m.point_id, CASE
                     WHEN m.point_id IS NULL AND e.personality_id = ANY(%(without)s::uuid[])
                         THEN 'none'
                     WHEN m.point_id = e.anchor_id::text AND {is_of_these_rows} THEN 'same'
                     ELSE 'apart' END AS kind
          FROM ({every_exchange}) e
          LEFT JOIN (SELECT m.point_id, m.anchor_id, m.source FROM memsync.memories m
                     WHERE {of_collection} AND m.anchor_id IS NOT NULL) m
              ON m.anchor_id = e.anchor_id OFFSET 0) compared
)
SELECT count(*) FILTER (WHERE kind = 'same' OR point_id IS NOT NULL) AS noted,
       count(*) FILTER (WHERE kind <> 'same' AND point_id IS NULL) AS without_memory,
       count(*) FILTER (WHERE kind = 'apart') AS apart,
       ARRAY(SELECT anchor_id FROM pairs WHERE kind = 'apart' LIMIT %(limit)s) AS anchor_ids,
       ARRAY(SELECT point_id FROM pairs WHERE kind = 'apart' AND point_id IS NOT NULL
             LIMIT %(limit)s) AS point_ids
FROM pairs;

-- name: ledger_size
-- How many memories the ledger has, and how many of them were without rows when they were noted.
SELECT count(*) AS noted, count(*) FILTER (WHERE m.anchor_id IS NULL) AS never_had
FROM memsync.memories m WHERE {of_collection};

-- name: ledger_without_rows
-- Memories whose rows are gone. `apart` is how many did not go by design, `apart_ids` are the first
-- of them. `again_ids` are those of which a reply of that personality stands that was written at
-- their time: the words may have been written once more.
WITH gone AS MATERIALIZED (
    SELECT m.point_id, m.anchor_id, m.persona_id, m.personality_id, m.channel_id, m.created_at_ms,
           m.state
    FROM memsync.memories m
    WHERE {of_collection} AND NOT EXISTS (
        SELECT FROM conversation_history h WHERE h.id = m.anchor_id)
),
apart AS MATERIALIZED (
    SELECT m.point_id FROM gone m
    WHERE m.anchor_id IS NOT NULL AND m.state <> 'archived' AND NOT {went_by_design}
)
SELECT (SELECT count(*) FROM apart) AS apart,
       ARRAY(SELECT point_id FROM apart LIMIT %(limit)s) AS apart_ids,
       ARRAY(SELECT DISTINCT g.point_id FROM gone g
             JOIN conversation_history h
                 ON h.role = 'assistant' AND h.personality_id = g.personality_id
                AND date_trunc('milliseconds', h.created_at)
                    = timestamp '1970-01-01' + g.created_at_ms * interval '1 millisecond'
             LIMIT %(limit)s) AS again_ids;

-- name: ledger_of_nobody
-- Memories of personas that do not exist.
SELECT m.point_id FROM memsync.memories m
WHERE {of_collection} AND m.persona_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM personas p WHERE p.id = m.persona_id)
LIMIT %(limit)s;
