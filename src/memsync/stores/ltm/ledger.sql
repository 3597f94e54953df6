-- The ledger of memories: Postgres' own list of what the vector store holds.

-- fragment: has_exchange
-- Whether Postgres has the exchange of a memory of the ledger. OFFSET keeps the planner from making
-- a table of all exchanges first, which a query for some memories would pay for.
EXISTS (SELECT FROM ({exchange}) e WHERE e.anchor_id = m.anchor_id OFFSET 0);

-- fragment: went_by_design
-- Whether the exchange of a memory, which Postgres no longer has, went as retention takes it: only
-- the reply stands, or no message of the thread is older.
(EXISTS (SELECT FROM conversation_history h WHERE h.id = m.anchor_id)
 OR NOT EXISTS (
    SELECT FROM conversation_history h
    CROSS JOIN LATERAL (
        SELECT timestamp '1970-01-01' + m.created_at_ms * interval '1 millisecond' AS at) said
    WHERE h.channel_id = m.channel_id AND h.personality_id = m.personality_id
      AND h.persona_id = m.persona_id AND h.created_at <= said.at
      AND (h.created_at < said.at OR h.role = 'user')));

-- fragment: state_now
-- The state of a memory in the ledger, by its rows as they are.
CASE WHEN m.state = 'live' AND NOT {has_exchange} AND {went_by_design} THEN 'archived'
     ELSE m.state END;

-- fragment: noted
-- A memory of the ledger.
m.collection, m.point_id, m.anchor_id, m.persona_id, m.personality_id, m.channel_id,
m.created_at_ms, encode(m.source, 'hex') AS source, encode(m.stored, 'hex') AS stored, m.leaving,
m.removed;

-- name: supersede_memories
-- Takes out what the ledger says of other points of these exchanges in the same collections: the
-- app, or a repair, has written the memory anew under another id.
DELETE FROM memsync.memories m
USING unnest(%(collections)s::text[], %(point_ids)s::text[], %(anchor_ids)s::uuid[])
    AS given(collection, point_id, anchor_id)
WHERE m.collection = given.collection AND m.anchor_id = given.anchor_id
  AND m.point_id <> given.point_id AND m.state = 'live';

-- name: note_memories
-- Writes memories down, or renews what is written of them.
INSERT INTO memsync.memories AS kept
    (collection, point_id, anchor_id, persona_id, personality_id, channel_id, created_at_ms, source,
     stored, state)
SELECT * FROM unnest(
    %(collections)s::text[], %(point_ids)s::text[], %(anchor_ids)s::uuid[], %(persona_ids)s::uuid[],
    %(personality_ids)s::uuid[], %(channel_ids)s::text[], %(times_ms)s::bigint[],
    %(sources)s::bytea[], %(stored)s::bytea[], %(states)s::text[])
ON CONFLICT (collection, point_id) DO UPDATE
SET anchor_id = coalesce(excluded.anchor_id, kept.anchor_id),
    persona_id = coalesce(excluded.persona_id, kept.persona_id),
    personality_id = coalesce(excluded.personality_id, kept.personality_id),
    channel_id = coalesce(excluded.channel_id, kept.channel_id),
    created_at_ms = coalesce(excluded.created_at_ms, kept.created_at_ms),
    source = CASE WHEN excluded.state = 'live' THEN excluded.source
                  ELSE coalesce(excluded.source, kept.source) END,
    stored = excluded.stored, state = excluded.state, leaving = false, removed = false,
    noted_at = clock_timestamp();

-- name: renew_memories
-- Renews the digests of memories of the ledger that are written anew. Whether they are right for
-- their rows is not known.
UPDATE memsync.memories m
SET stored = given.stored, source = NULL, leaving = false, removed = false,
    noted_at = clock_timestamp()
FROM unnest(%(point_ids)s::text[], %(stored)s::bytea[]) AS given(point_id, stored)
WHERE m.collection = %(collection)s AND m.point_id = given.point_id;

-- name: memories_leave
-- Notes that memories of the ledger are about to go to the quarantine, that they went, or that they
-- stay. What is about to happen changes nothing that is known of them, and so not since when.
UPDATE memsync.memories
SET leaving = %(leaving)s, removed = %(removed)s,
    noted_at = CASE WHEN removed = %(removed)s THEN noted_at ELSE clock_timestamp() END
WHERE collection = %(collection)s AND point_id = ANY(%(point_ids)s)
  AND (leaving, removed) IS DISTINCT FROM (%(leaving)s, %(removed)s);

-- name: forget_leaving
-- Forgets which memories a repair that ended early was about to remove.
UPDATE memsync.memories SET leaving = false WHERE leaving;

-- name: memories_at
-- What the ledger says of these points.
SELECT {noted}, {state_now} AS state, {has_exchange} AS has_rows
FROM memsync.memories m
JOIN unnest(%(collections)s::text[], %(point_ids)s::text[]) AS asked(collection, point_id)
    USING (collection, point_id);

-- name: memories_without_rows
-- The memories of the ledger that stand and of which Postgres has no exchange, by one pass over the
-- history. The join is a full one because no nested loop can make that, and of a ledger that was
-- just written the planner knows nothing. Memories without an anchor would be in one bucket of it.
SELECT m.collection, m.point_id
FROM (SELECT collection, point_id, anchor_id FROM memsync.memories
      WHERE NOT removed AND anchor_id IS NOT NULL) m
FULL JOIN ({every_exchange}) e ON e.anchor_id = m.anchor_id
WHERE e.anchor_id IS NULL
UNION ALL
SELECT collection, point_id FROM memsync.memories WHERE NOT removed AND anchor_id IS NULL
ORDER BY collection, point_id;

-- name: memories_without_rows_in
-- The memories of the ledger, of these collections, of which Postgres has no exchange. It is asked
-- only for those whose anchors are not known; the join is as in `memories_without_rows`.
SELECT m.collection, m.point_id
FROM (SELECT m.* FROM (SELECT collection, point_id, anchor_id FROM memsync.memories
                       WHERE collection = ANY(%(collections)s) AND anchor_id IS NOT NULL) m
      FULL JOIN unnest(%(known)s::uuid[]) AS known(id) ON known.id = m.anchor_id
      WHERE known.id IS NULL OFFSET 0) m
WHERE NOT {has_exchange}
UNION ALL
SELECT collection, point_id FROM memsync.memories
WHERE collection = ANY(%(collections)s) AND anchor_id IS NULL;

-- name: memories_to_archive
-- Live memories of the ledger whose exchanges went by design, by one pass over the history; the
-- join is as in `memories_without_rows`.
SELECT m.collection, m.point_id, m.noted_at
FROM (SELECT collection, point_id, anchor_id, persona_id, personality_id, channel_id, created_at_ms,
             noted_at
      FROM memsync.memories WHERE state = 'live') m
FULL JOIN ({every_exchange}) e ON e.anchor_id = m.anchor_id
WHERE e.anchor_id IS NULL AND {went_by_design}
LIMIT %(memories_max)s;

-- name: archive_memories
-- Writes down that memories are archived, so that rows which come later do not change it. One that
-- was noted since, or that somebody is writing down, is left to the next time. It is as old as it
-- was, so that who adopts everything anew meanwhile takes it out.
UPDATE memsync.memories m SET state = 'archived'
FROM (SELECT collection, point_id
      FROM memsync.memories
      JOIN unnest(%(collections)s::text[], %(point_ids)s::text[], %(noted)s::timestamptz[])
          AS given(collection, point_id, at) USING (collection, point_id)
      WHERE noted_at = given.at AND state = 'live'
      FOR UPDATE OF memories SKIP LOCKED) free
WHERE m.collection = free.collection AND m.point_id = free.point_id;

-- name: begin_to_archive
-- Whether the ledger was not compared with the rows for so many seconds. If so, it is now.
UPDATE memsync.mark SET archived_at = clock_timestamp()
WHERE archived_at < clock_timestamp() - make_interval(secs => %(every_s)s);

-- name: drop_memories_before
-- Takes out of the ledger what was not written down since.
DELETE FROM memsync.memories WHERE noted_at < %(since)s;

-- name: drop_memories
-- Takes these points out of the ledger.
DELETE FROM memsync.memories m
USING unnest(%(collections)s::text[], %(point_ids)s::text[]) AS given(collection, point_id)
WHERE m.collection = given.collection AND m.point_id = given.point_id;

-- name: ledger_unlike
-- Those of these points that the ledger has with another digest, as archived, or not at all.
SELECT collection, point_id
FROM unnest(%(collections)s::text[], %(point_ids)s::text[], %(digests)s::bytea[])
    AS stands(collection, point_id, digest)
LEFT JOIN memsync.memories m USING (collection, point_id)
WHERE m.stored IS DISTINCT FROM stands.digest OR m.state = 'archived';

-- name: ledger_personas
-- Those of these personas of whom the ledger has a memory.
SELECT DISTINCT persona_id FROM memsync.memories WHERE persona_id = ANY(%(ids)s);

-- name: ledger_standing
-- How many memories stand by the ledger, in the shared collection or in the others.
SELECT count(*) AS memories FROM memsync.memories
WHERE NOT removed AND (collection = %(shared)s) = %(is_shared)s;
