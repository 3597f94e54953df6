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
m.source IS NOT DISTINCT FROM decode(memsync.memory_digest(
    e.anchor_id, e.persona_id, e.personality_id, e.channel_id, e.created_at_ms, e.user_text,
    e.assistant_text), 'hex');

-- name: history_against_ledger
-- How many exchanges there are, how many memories of the ledger are archived, and about which of
-- both the two do not agree: an exchange without a memory, a memory that was made of other rows or
-- has another id, and one whose rows went otherwise than by design. `apart` is how many these are,
-- `anchor_ids` and `point_ids` are those of the first. Personalities that are `without` keep none.
SELECT count(anchor_id) AS exchanges, count(*) FILTER (WHERE kind = 'archived') AS archived,
       count(*) FILTER (WHERE kind = 'apart') AS apart,
       (array_agg(anchor_id) FILTER (WHERE kind = 'apart'))[:%(limit)s] AS anchor_ids,
       (array_agg(point_id) FILTER (WHERE kind = 'apart'))[:%(limit)s] AS point_ids
FROM (SELECT e.anchor_id, m.point_id, CASE
          WHEN m.point_id IS NULL AND e.personality_id = ANY(%(without)s::uuid[]) THEN 'none'
          WHEN m.point_id IS NULL THEN 'apart'
          WHEN e.anchor_id IS NULL AND (m.state = 'archived' OR {went_by_design}) THEN 'archived'
          WHEN e.anchor_id IS NULL THEN 'apart'
          WHEN m.point_id = e.anchor_id::text AND {is_of_these_rows} THEN 'same'
          ELSE 'apart' END AS kind
      FROM ({every_exchange}) e
      FULL JOIN (SELECT m.point_id, m.anchor_id, m.persona_id, m.personality_id, m.channel_id,
                        m.created_at_ms, m.source, m.state
                 FROM memsync.memories m WHERE {of_collection}) m
          ON m.anchor_id = e.anchor_id) pairs;
