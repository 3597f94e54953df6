-- Reads and writes messages and exchanges.

-- fragment: turn
-- The second part of a thread's order, which is (created_at, turn, id): of messages of one time the
-- user's comes before the assistant's. `model.records.thread_order` is the same in Python.
CASE role WHEN 'user' THEN 1 WHEN 'assistant' THEN 2 ELSE 0 END;

-- fragment: readable
-- Whether the time of a message is within the years 1 to 9999, which Python can hold. Postgres also
-- has infinity, years BC and later ones. A message of such a time is left out of its thread, and
-- the finding unreadable-time names it.
created_at >= timestamp '0001-01-01' AND created_at < timestamp '10000-01-01';

-- fragment: in_thread
-- The messages of one thread that can be read.
channel_id = %(channel_id)s AND personality_id = %(personality_id)s
AND persona_id = %(persona_id)s AND {readable};

-- name: recent_history
-- The newest messages of one thread, newest first.
SELECT id, persona_id, role, content, created_at
FROM conversation_history
WHERE {in_thread}
ORDER BY created_at DESC, {turn} DESC, id DESC
LIMIT %(limit)s;

-- name: recent_history_of_user
-- The newest messages of one user's thread, newest first; before contract.
SELECT id, user_id, role, content, created_at
FROM conversation_history
WHERE channel_id = %(channel_id)s AND personality_id = %(personality_id)s
  AND user_id = %(user_id)s AND {readable}
ORDER BY created_at DESC, {turn} DESC, id DESC
LIMIT %(limit)s;

-- name: insert_message
-- Writes one message.
INSERT INTO conversation_history
       (id, channel_id, personality_id, persona_id, role, content, created_at)
VALUES (%(id)s, %(channel_id)s, %(personality_id)s, %(persona_id)s, %(role)s, %(content)s,
        %(created_at)s);

-- name: standing_messages
-- Which of the given messages stand.
SELECT id FROM conversation_history WHERE id = ANY(%(ids)s);

-- name: standing_replies
-- Which of the given messages stand and are replies.
SELECT id FROM conversation_history WHERE id = ANY(%(ids)s) AND role = 'assistant';

-- name: message_times
-- When the given messages were written, in milliseconds.
SELECT id, (extract(epoch FROM created_at) * 1000)::bigint AS at_ms FROM conversation_history
WHERE id = ANY(%(ids)s) AND {readable};

-- name: lock_thread
-- Lets one transaction at a time write to a thread, so that each sees the messages before its own.
-- It never waits: a transaction that waits would hold up CREATE INDEX CONCURRENTLY.
SELECT pg_try_advisory_xact_lock(hashtextextended(%(thread)s, 0)) AS taken;

-- name: thread_clock
-- The time for a thread's next message: now, or 1 ms after its newest if that is later.
SELECT greatest(
    date_trunc('milliseconds', clock_timestamp() AT TIME ZONE 'UTC'),
    (SELECT max(created_at) + interval '1 millisecond' FROM conversation_history
     WHERE {in_thread})) AS moment;

-- name: first_gap
-- The first place for an exchange that was said at the given time: between two messages that follow
-- each other in the thread and are no exchange, with a free millisecond that is not before that
-- time. NULL where the thread begins or ends.
(SELECT NULL::timestamp AS after_at, min(created_at) AS before_at
 FROM conversation_history WHERE {in_thread}
 HAVING (min(created_at) > %(said_at)s) IS NOT FALSE)
UNION ALL
(SELECT m.created_at, n.created_at
 FROM (SELECT id, created_at, role, {turn} AS turn FROM conversation_history
       WHERE {in_thread} AND created_at >= (
           SELECT max(created_at) FROM conversation_history
           WHERE {in_thread} AND created_at <= %(said_at)s)) m
 LEFT JOIN LATERAL (
     SELECT created_at, role FROM conversation_history
     WHERE {in_thread} AND created_at >= m.created_at
       AND (created_at > m.created_at OR ({turn}, id) > (m.turn, m.id))
     ORDER BY created_at, {turn}, id LIMIT 1) n ON true
 WHERE (m.role = 'user' AND n.role = 'assistant') IS NOT TRUE
   AND (n.created_at > greatest(m.created_at + interval '1 millisecond', %(said_at)s)) IS NOT FALSE
 ORDER BY m.created_at LIMIT 1);

-- fragment: before_reply
-- The message directly before the reply `a` in its thread. {same_speaker} says whose thread it is.
SELECT p.id, p.role, p.content FROM conversation_history p
WHERE p.channel_id = a.channel_id AND p.personality_id = a.personality_id AND {same_speaker}
  AND {readable} AND p.created_at <= a.created_at
  AND (p.created_at < a.created_at OR ({turn}, p.id) < (2, a.id))
ORDER BY p.created_at DESC, {turn} DESC, p.id DESC LIMIT 1;

-- fragment: same_speaker
-- The thread is that of one persona.
p.persona_id = a.persona_id;

-- fragment: exchange
-- An assistant message with the user message directly before it in its thread.
-- `model.records.exchanges` does the same in Python; a test compares the two.
SELECT a.id AS anchor_id, a.persona_id, a.personality_id, a.channel_id,
       (extract(epoch FROM a.created_at) * 1000)::bigint AS created_at_ms,
       u.content AS user_text, a.content AS assistant_text, u.id AS said_id, a.created_at
FROM conversation_history a
CROSS JOIN LATERAL ({before_reply}) u
WHERE a.role = 'assistant' AND u.role = 'user' AND {readable};

-- fragment: threads
-- All of them.
true;

-- fragment: threads_of_first_half
-- Those of one half of the channels. The planner takes such a comparison for a third of the
-- messages, and an equation about the hash for one in 200.
hashtext(channel_id) < 0;

-- fragment: threads_of_second_half
-- Those of the other half.
hashtext(channel_id) >= 0;

-- fragment: every_exchange
-- All exchanges, read by one pass over the threads: a tenth of the time of `exchange` for all. The
-- planner takes a CASE for half of the replies; of the comparison alone it expects one in 200.
SELECT anchor_id, persona_id, personality_id, channel_id,
       (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
       user_text, assistant_text, said_id, created_at
FROM (SELECT id AS anchor_id, persona_id, personality_id, channel_id, created_at, role,
             content AS assistant_text, lag(id) OVER thread AS said_id,
             lag(role) OVER thread AS role_before, lag(content) OVER thread AS user_text
      FROM conversation_history
      WHERE {readable} AND persona_id IS NOT NULL AND {threads}
      WINDOW thread AS (PARTITION BY channel_id, personality_id, persona_id
                        ORDER BY created_at, {turn}, id)) messages
WHERE role = 'assistant' AND CASE WHEN role_before = 'user' THEN true ELSE false END;

-- name: exchanges_page
-- One page of exchanges in the order of their anchors' ids.
SELECT * FROM ({exchange}) e
WHERE e.anchor_id >= %(start)s ORDER BY e.anchor_id LIMIT %(limit)s;

-- fragment: digest_of_rows
-- The digest of an exchange `e`.
decode(memsync.memory_digest(
    e.anchor_id, e.persona_id, e.personality_id, e.channel_id, e.created_at_ms, e.user_text,
    e.assistant_text), 'hex');

-- name: exchange_digests
-- The anchor's id and the digest of every exchange, as one value, in the order of the ids.
SELECT uuid_send(e.anchor_id) || {digest_of_rows} AS row
FROM ({every_exchange}) e ORDER BY e.anchor_id;

-- name: anchors_of_nobody
-- The replies to personas that do not exist, in the order of their ids. A foreign key forbids them,
-- but a restore may go past it.
SELECT h.id FROM conversation_history h
WHERE h.role = 'assistant' AND h.persona_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM personas p WHERE p.id = h.persona_id)
ORDER BY h.id;

-- name: exchanges_by_anchor
-- The exchanges of the given anchors; an anchor that forms none is absent.
SELECT * FROM ({exchange}) e WHERE e.anchor_id = ANY(%(ids)s) ORDER BY e.anchor_id;

-- name: exchanges_of_personas
-- All exchanges of the given personas. A thread is of one persona, so the planner reads no others.
SELECT * FROM ({every_exchange}) e WHERE e.persona_id = ANY(%(ids)s);

-- fragment: windows
-- The seconds of the given windows (milliseconds, both ends included). Joined by these, anchors are
-- found by one pass over the messages, and only what that finds is joined with other messages.
SELECT DISTINCT personality_id, first, last, generate_series(
           date_trunc('second', first), last, interval '1 second') AS second
FROM unnest(%(personality_ids)s::uuid[], %(from_ms)s::bigint[], %(to_ms)s::bigint[])
         AS w(personality_id, from_ms, to_ms),
     LATERAL (SELECT timestamp '1970-01-01' + from_ms * interval '1 millisecond' AS first,
                     timestamp '1970-01-01' + to_ms * interval '1 millisecond' AS last) t;

-- fragment: anchors_in_windows
-- The replies that were written in one of the `windows`.
SELECT DISTINCT h.id FROM conversation_history h
JOIN windows w ON h.personality_id = w.personality_id
 AND date_trunc('second', h.created_at) = w.second
 AND h.created_at BETWEEN w.first AND w.last
WHERE h.role = 'assistant';

-- name: exchanges_at
-- Exchanges of any persona whose anchor was written in one of the given windows, for points that
-- match no exchange of their own persona.
WITH windows AS ({windows}), anchors AS MATERIALIZED ({anchors_in_windows})
SELECT e.* FROM ({exchange}) e JOIN anchors n ON n.id = e.anchor_id ORDER BY e.anchor_id;

-- name: exchanges_of_personas_at
-- The same of the given personas alone.
WITH windows AS ({windows}),
     anchors AS MATERIALIZED ({anchors_in_windows} AND h.persona_id = ANY(%(personas)s))
SELECT e.* FROM ({exchange}) e JOIN anchors n ON n.id = e.anchor_id ORDER BY e.anchor_id;

-- name: lone_replies
-- The replies that were written in one of the given windows and follow no message of the user's.
WITH windows AS ({windows}), anchors AS MATERIALIZED ({anchors_in_windows})
SELECT a.persona_id, a.personality_id, a.content,
       (extract(epoch FROM a.created_at) * 1000)::bigint AS created_at_ms
FROM conversation_history a JOIN anchors n ON n.id = a.id
LEFT JOIN LATERAL ({before_reply}) u ON true
WHERE a.persona_id IS NOT NULL AND {readable} AND u.role IS DISTINCT FROM 'user'
ORDER BY created_at_ms;

-- name: known_personas
-- Which of the given personas exist.
SELECT id FROM personas WHERE id = ANY(%(ids)s);

-- name: messages_in_stretches
-- How many messages lie in each of the stretches between these times (milliseconds, ascending). The
-- stretch 0 is before the first time.
SELECT width_bucket((extract(epoch FROM created_at) * 1000)::bigint, %(times)s::bigint[]) AS stretch,
       count(*) AS messages
FROM conversation_history WHERE {readable} GROUP BY 1;

-- name: history_is_empty
-- Whether there is no message that can be read.
SELECT NOT EXISTS (SELECT FROM conversation_history WHERE {readable}) AS empty;

-- name: memories_of_the_app_on_their_way
-- The messages whose exchanges the app still means to give a memory, and not for longer than the
-- alarm age: its own outbox names them. ids: only these; NULL: all.
SELECT conversation_history_id AS id FROM pending_memories
WHERE created_at > timezone('UTC', clock_timestamp()) - make_interval(secs => %(alarm_s)s)
  AND (%(ids)s::uuid[] IS NULL OR conversation_history_id = ANY(%(ids)s));

-- name: now_ms
-- The database's clock, which measures settle windows.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms;

-- name: messages_without_persona
-- The first messages that have no persona, and how many there are.
SELECT id, count(*) OVER () AS total FROM conversation_history
WHERE persona_id IS NULL ORDER BY id LIMIT %(limit)s;

-- name: messages_of_unknown_personas
-- The first messages that have a persona which does not exist, and how many there are. A foreign
-- key forbids them, but a restore can go past it.
SELECT h.id, h.persona_id, count(*) OVER () AS total FROM conversation_history h
WHERE h.persona_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM personas p WHERE p.id = h.persona_id)
ORDER BY h.id LIMIT %(limit)s;

-- name: unreadable_messages
-- The first messages whose time cannot be read, and how many there are.
SELECT id, created_at::text AS created_at, count(*) OVER () AS total FROM conversation_history
WHERE ({readable}) IS NOT TRUE ORDER BY id LIMIT %(limit)s;

-- name: unreadable_threads
-- The threads that have a message whose time cannot be read.
SELECT DISTINCT channel_id, personality_id, persona_id FROM conversation_history
WHERE ({readable}) IS NOT TRUE AND persona_id IS NOT NULL;
