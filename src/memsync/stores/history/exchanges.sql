-- Reads and writes messages and exchanges.

-- name: recent_history
-- The newest messages of one thread, newest first.
SELECT id, persona_id, role, content, created_at
FROM conversation_history
WHERE channel_id = %(channel_id)s AND personality_id = %(personality_id)s
  AND persona_id = %(persona_id)s
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s;

-- name: recent_history_of_user
-- The newest messages of one user's thread, newest first; before contract.
SELECT id, user_id, role, content, created_at
FROM conversation_history
WHERE channel_id = %(channel_id)s AND personality_id = %(personality_id)s
  AND user_id = %(user_id)s
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s;

-- name: insert_message
-- Writes one message.
INSERT INTO conversation_history
       (id, channel_id, personality_id, persona_id, role, content, created_at)
VALUES (%(id)s, %(channel_id)s, %(personality_id)s, %(persona_id)s, %(role)s, %(content)s,
        %(created_at)s);

-- name: lock_thread
-- Lets one transaction at a time write to a thread, so that each sees the messages before its own.
-- It never waits: a transaction that waits would hold up CREATE INDEX CONCURRENTLY.
SELECT pg_try_advisory_xact_lock(hashtextextended(%(thread)s, 0)) AS taken;

-- name: thread_clock
-- The time for a thread's next message: now, or 1 ms after its newest if that is later.
SELECT greatest(
    date_trunc('milliseconds', clock_timestamp() AT TIME ZONE 'UTC'),
    (SELECT max(created_at) + interval '1 millisecond' FROM conversation_history
     WHERE channel_id = %(channel_id)s AND personality_id = %(personality_id)s
       AND persona_id = %(persona_id)s)) AS moment;

-- name: next_anchors
-- The assistant messages that directly follow any of the given messages in their thread: their
-- exchanges may have changed with them.
SELECT DISTINCT n.id
FROM conversation_history h
CROSS JOIN LATERAL (
    SELECT f.id, f.role FROM conversation_history f
    WHERE f.channel_id = h.channel_id AND f.personality_id = h.personality_id
      AND f.persona_id = h.persona_id AND (f.created_at, f.id) > (h.created_at, h.id)
    ORDER BY f.created_at, f.id LIMIT 1) n
WHERE h.id = ANY(%(ids)s) AND n.role = 'assistant';

-- fragment: exchange
-- An assistant message with the user message directly before it in its thread.
-- `model.records.exchanges` does the same in Python; a test compares the two.
SELECT a.id AS anchor_id, a.persona_id, a.personality_id, a.channel_id,
       (extract(epoch FROM a.created_at) * 1000)::bigint AS created_at_ms,
       u.content AS user_text, a.content AS assistant_text, a.created_at
FROM conversation_history a
CROSS JOIN LATERAL (
    SELECT p.role, p.content FROM conversation_history p
    WHERE p.channel_id = a.channel_id AND p.personality_id = a.personality_id
      AND p.persona_id = a.persona_id AND (p.created_at, p.id) < (a.created_at, a.id)
    ORDER BY p.created_at DESC, p.id DESC LIMIT 1) u
WHERE a.role = 'assistant' AND u.role = 'user';

-- name: exchanges_page
-- One page of exchanges in the order of their anchors' ids.
SELECT * FROM ({exchange}) e
WHERE e.anchor_id >= %(start)s ORDER BY e.anchor_id LIMIT %(limit)s;

-- name: exchanges_by_anchor
-- The exchanges of the given anchors; an anchor that forms none is absent.
SELECT * FROM ({exchange}) e WHERE e.anchor_id = ANY(%(ids)s) ORDER BY e.anchor_id;

-- name: exchanges_of_persona
-- All exchanges of one persona.
SELECT * FROM ({exchange}) e WHERE e.persona_id = %(persona_id)s ORDER BY e.anchor_id;

-- name: exchanges_at
-- Exchanges of any persona whose anchor was written in one of the given windows (milliseconds,
-- both ends included), for points that match no exchange of their own persona.
SELECT DISTINCT e.* FROM ({exchange}) e
JOIN unnest(%(personality_ids)s::uuid[], %(from_ms)s::bigint[], %(to_ms)s::bigint[])
     AS w(personality_id, from_ms, to_ms)
  ON e.personality_id = w.personality_id AND e.created_at
     BETWEEN timestamp '1970-01-01' + w.from_ms * interval '1 millisecond'
         AND timestamp '1970-01-01' + w.to_ms * interval '1 millisecond'
ORDER BY e.anchor_id;

-- name: known_personas
-- Which of the given personas exist.
SELECT id FROM personas WHERE id = ANY(%(ids)s);

-- name: horizon_ms
-- The time of the oldest message that is still kept.
SELECT (extract(epoch FROM min(created_at)) * 1000)::bigint AS ms FROM conversation_history;

-- name: now_ms
-- The database's clock, which measures settle windows.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms;

-- name: messages_without_persona
-- The first messages that have no persona, and how many there are.
SELECT id, count(*) OVER () AS total FROM conversation_history
WHERE persona_id IS NULL ORDER BY id LIMIT %(limit)s;
