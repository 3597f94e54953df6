-- Fingerprints of the memories in the ledger, as the vector store has those of its points.

-- fragment: first_bucket
-- The first 12 bits of a digest. `model.digests.buckets` is the same in Python.
((get_byte(m.stored, 0) << 4) | (get_byte(m.stored, 1) >> 4));

-- fragment: second_bucket
-- The next 12 bits of a digest.
(((get_byte(m.stored, 1) & 15) << 8) | get_byte(m.stored, 2));

-- fragment: of_collection
-- The memories that stand in a collection by the ledger.
m.collection = %(collection)s AND NOT m.removed;

-- name: ledger_histograms
-- How many memories have each first bucket, each second bucket and each persona; the other two
-- columns of a row are NULL, and a memory whose persona is not known counts for none.
SELECT fp1, fp2, persona_id, count(*) AS memories
FROM (SELECT {first_bucket} AS fp1, {second_bucket} AS fp2, m.persona_id FROM memsync.memories m
      WHERE {of_collection}) prints
GROUP BY GROUPING SETS ((fp1), (fp2), (persona_id))
HAVING fp1 IS NOT NULL OR fp2 IS NOT NULL OR persona_id IS NOT NULL;

-- name: ledger_prints
-- The memories whose buckets and persona are among these; NULL stands for all.
SELECT m.point_id, encode(m.stored, 'hex') AS digest, m.persona_id
FROM memsync.memories m
WHERE {of_collection} AND (%(fp1)s::int[] IS NULL OR {first_bucket} = ANY(%(fp1)s::int[]))
  AND (%(fp2)s::int[] IS NULL OR {second_bucket} = ANY(%(fp2)s::int[]))
  AND (%(personas)s::uuid[] IS NULL OR m.persona_id = ANY(%(personas)s::uuid[]));

-- name: ledger_prints_of
-- The memories of these ids.
SELECT m.point_id, encode(m.stored, 'hex') AS digest, m.persona_id
FROM memsync.memories m WHERE {of_collection} AND m.point_id = ANY(%(ids)s::text[]);

-- fragment: is_of_these_rows
-- Whether what the ledger has of an exchange was written down when the rows were as they are.
m.source IS NOT DISTINCT FROM {digest_of_rows};

-- name: history_against_ledger
-- Where the history and the ledger do not agree: exchanges that have no memory in the ledger, or one
-- that was made of other rows or has another id, and memories whose rows went otherwise than by
-- design. `apart` is how many these are, `anchor_ids` and `point_ids` are those of the first.
-- `without_memory` counts exchanges that the ledger does not have, `without_rows` memories with an
-- anchor that the history does not have; of these, `archived` went by design. `noted` counts the
-- ledger, `never_had` its memories that were without rows when they were noted. Personalities that
-- are `without` keep no memories. Memories without an anchor are left out of the join, because they
-- would all be in one bucket of its hash.
WITH pairs AS MATERIALIZED (
    SELECT e.anchor_id, m.point_id, CASE
               WHEN m.point_id IS NULL AND e.personality_id = ANY(%(without)s::uuid[]) THEN 'none'
               WHEN m.point_id IS NULL THEN 'apart'
               WHEN e.anchor_id IS NULL AND (m.state = 'archived' OR {went_by_design})
                   THEN 'archived'
               ELSE 'apart' END AS kind
    FROM ({every_exchange}) e
    FULL JOIN (SELECT m.point_id, m.anchor_id, m.persona_id, m.personality_id, m.channel_id,
                      m.created_at_ms, m.source, m.state
               FROM memsync.memories m WHERE {of_collection} AND m.anchor_id IS NOT NULL) m
        ON m.anchor_id = e.anchor_id
    WHERE (m.point_id = e.anchor_id::text AND {is_of_these_rows}) IS NOT TRUE
)
SELECT count(*) FILTER (WHERE point_id IS NULL) AS without_memory,
       count(*) FILTER (WHERE anchor_id IS NULL) AS without_rows,
       count(*) FILTER (WHERE kind = 'archived') AS archived,
       count(*) FILTER (WHERE kind = 'apart') AS apart,
       ARRAY(SELECT anchor_id FROM pairs WHERE kind = 'apart' AND anchor_id IS NOT NULL
             LIMIT %(limit)s) AS anchor_ids,
       ARRAY(SELECT point_id FROM pairs WHERE kind = 'apart' AND point_id IS NOT NULL
             LIMIT %(limit)s) AS point_ids,
       (SELECT count(*) FROM memsync.memories m WHERE {of_collection}) AS noted,
       (SELECT count(*) FROM memsync.memories m
        WHERE {of_collection} AND m.anchor_id IS NULL) AS never_had
FROM pairs;

-- name: ledger_said_again
-- Memories whose rows are gone, while a reply of that personality stands that was written at their
-- time: the words may have been written once more.
WITH gone AS MATERIALIZED (
    SELECT m.point_id, m.personality_id, m.created_at_ms FROM memsync.memories m
    WHERE {of_collection} AND NOT EXISTS (
        SELECT FROM conversation_history h WHERE h.id = m.anchor_id)
)
SELECT DISTINCT g.point_id FROM gone g
JOIN conversation_history h ON h.role = 'assistant' AND h.personality_id = g.personality_id
 AND date_trunc('milliseconds', h.created_at)
     = timestamp '1970-01-01' + g.created_at_ms * interval '1 millisecond'
LIMIT %(limit)s;

-- name: ledger_of_nobody
-- Memories of personas that do not exist.
SELECT m.point_id FROM memsync.memories m
WHERE {of_collection} AND m.persona_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM personas p WHERE p.id = m.persona_id)
LIMIT %(limit)s;

-- name: can_compute_digests
-- Whether Postgres has the function for digests, and this role may call it.
SELECT coalesce(has_function_privilege(to_regprocedure(
    'memsync.memory_digest(uuid,uuid,uuid,text,bigint,text,text)'), 'EXECUTE'), false) AS can;
