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

-- name: can_compute_digests
-- Whether Postgres has the function for digests, and this role may call it.
SELECT coalesce(has_function_privilege(to_regprocedure(
    'memsync.memory_digest(uuid,uuid,uuid,text,bigint,text,text)'), 'EXECUTE'), false) AS can;
