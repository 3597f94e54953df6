-- Evidence of which persona spoke: the memories that were made from the exchanges.

-- name: make_points
-- The points that were read, a row each, with the first and the last millisecond that their time
-- may mean. `kind` is the kind of their collection. Copies of one memory have the same `memory`.
-- lint: allow TEMP the evidence that was read belongs to this run alone
CREATE TEMP TABLE memsync_points (
    source text NOT NULL, kind text NOT NULL, memory uuid NOT NULL, earliest timestamp NOT NULL,
    latest timestamp NOT NULL, personality_id uuid NOT NULL, persona_id uuid NOT NULL,
    user_text text, assistant_text text, content text,
    CHECK (num_nulls(user_text, assistant_text) IN (0, 2)));

-- name: make_matches
-- An exchange that a point may have been made from: its anchor, the user's message before it, and
-- the persona that the point names. `skewed`: their times differ. `enriched`: the point says more.
-- lint: allow TEMP the evidence that was read belongs to this run alone
CREATE TEMP TABLE memsync_matches (
    source text NOT NULL, kind text NOT NULL, memory uuid NOT NULL, anchor_id uuid NOT NULL,
    message_id uuid NOT NULL, user_id uuid NOT NULL, personality_id uuid NOT NULL,
    persona_id uuid NOT NULL, skewed boolean NOT NULL, enriched boolean NOT NULL);

-- name: make_verdicts
-- The verdict on each exchange, by all of its points.
-- lint: allow TEMP the evidence that was read belongs to this run alone
CREATE TEMP TABLE memsync_verdicts (
    anchor_id uuid NOT NULL, message_id uuid NOT NULL, user_id uuid NOT NULL,
    persona_id uuid, source text, verdict text NOT NULL);

-- name: make_evidence
-- The messages that evidence decides, numbered so that they can be written in batches.
-- lint: allow TEMP the evidence that was read belongs to this run alone
CREATE TEMP TABLE memsync_evidence (
    number bigint PRIMARY KEY, history_id uuid NOT NULL, user_id uuid NOT NULL,
    personality_id uuid NOT NULL, persona_id uuid NOT NULL, source text NOT NULL);

-- name: analyze_points
-- Counts the points for the planner, so that it joins in one pass over the history.
ANALYZE memsync_points;

-- name: join_in_one_pass
-- Turns nested loops, bitmaps and sorts off until the transaction ends. A new column has no
-- statistics, so the planner would expect few rows with persona_id NULL, and look each match up on
-- its own. The message before a reply is among the first of an ordered index, and only those of one
-- time are sorted, by an incremental sort, which stays on; with a bitmap or a whole sort the whole
-- thread would be read for each reply, so that the time grew with its square.
SELECT set_config(name, 'off', true)
FROM unnest(ARRAY['enable_nestloop', 'enable_bitmapscan', 'enable_sort']) AS off(name);

-- fragment: agrees
-- Whether the text of point p is that of message u and reply a. Two texts must be equal. One text
-- joins them as an earlier build did, or has the deployed form, `User (<name>): <message>` and
-- `<personality>: <reply>`, which is read from its end because the names may have changed.
-- stores/ltm/layouts.py says the same; one test holds them together.
(SELECT CASE WHEN p.user_text IS NOT NULL AND p.assistant_text IS NOT NULL
             THEN p.user_text = u.content AND p.assistant_text = a.content
        ELSE p.content = 'user: ' || u.content || E'\nassistant: ' || a.content
     OR starts_with(p.content, 'User (')
        AND right(p.content, length(a.content) + 2) = ': ' || a.content
        AND length(t.personality) BETWEEN 1 AND length(h.head) - 1
        AND right(s.said, length(u.content) + 3) = '): ' || u.content
        AND strpos(substr(s.said, 1, length(s.said) - length(u.content) - 3), E'\n') = 0
        END
 FROM (SELECT left(p.content, -(length(a.content) + 2)) AS head) h,
      LATERAL (SELECT split_part(h.head, E'\n', -1) AS personality) t,
      LATERAL (SELECT left(h.head, -(length(t.personality) + 1)) AS said) s);

-- fragment: says_more
-- Whether the one text of point p is that of message u and reply a in the deployed form, with what
-- the app may have added behind either. An addition begins with white space; where both have one,
-- that of the reply begins a line. stores/ltm/layouts.py says the same.
(SELECT p.assistant_text IS NULL AND starts_with(p.content, 'User (') AND h.message > 0
    AND strpos(left(substr(p.content, 7), h.message - 1), E'\n') = 0
    AND left(t.rest, 1) IN (' ', E'\t', E'\n', E'\r')
    AND (right(t.rest, length(a.content) + 2) = ': ' || a.content
         AND length(s.of_end) BETWEEN 1 AND length(t.rest) - length(a.content) - 3
      OR starts_with(t.rest, E'\n') AND s.reply > 1
         AND strpos(left(substr(t.rest, 2), s.reply - 1), E'\n') = 0
         AND substr(t.rest, s.reply + length(a.content) + 3, 1) IN (' ', E'\t', E'\n', E'\r')
      OR s.line > 1
         AND length(split_part(left(t.rest, s.line - 1), E'\n', -1)) BETWEEN 1 AND s.line - 2)
 FROM (SELECT strpos(substr(p.content, 7), '): ' || u.content) AS message) h,
      LATERAL (SELECT substr(p.content, h.message + length(u.content) + 9) AS rest) t,
      LATERAL (SELECT split_part(left(t.rest, -(length(a.content) + 2)), E'\n', -1) AS of_end,
                      strpos(substr(t.rest, 2), ': ' || a.content) AS reply,
                      strpos(t.rest, ': ' || a.content || E'\n') AS line) s);

-- fragment: same_user
-- The thread is that of one user, because the history is not read by persona yet. The caller of the
-- statements below names it for {same_speaker}.
p.user_id = a.user_id;

-- fragment: has_reply
-- A cheap test that every point passes which says reply a.
coalesce(p.assistant_text = a.content, strpos(p.content, ': ' || a.content) > 0);

-- fragment: says
-- Whether point p tells of message u and reply a: no more than they say (0), more (1), or not
-- (NULL).
(SELECT CASE WHEN {agrees} THEN 0 WHEN {says_more} THEN 1 END AS more);

-- name: match_points
-- Finds the exchanges that have the time and the text of a point. Whose persona the point names is
-- judged later. All messages are looked at, also those that are decided.
INSERT INTO memsync_matches (source, kind, memory, anchor_id, message_id, user_id, personality_id,
                             persona_id, skewed, enriched)
SELECT p.source, p.kind, p.memory, a.id, u.id, a.user_id, a.personality_id, p.persona_id,
       false, t.more = 1
FROM memsync_points p
JOIN conversation_history a
  ON a.personality_id = p.personality_id
 AND date_trunc('second', a.created_at) = date_trunc('second', p.earliest)
 AND a.created_at >= p.earliest AND a.created_at < p.latest + interval '1 millisecond'
 AND a.role = 'assistant' AND {has_reply} AND {readable}
CROSS JOIN LATERAL ({before_reply}) u
CROSS JOIN LATERAL {says} t
WHERE a.user_id IS NOT NULL AND u.role = 'user' AND t.more IS NOT NULL;

-- name: match_skewed_points
-- Finds, for the points that have no exchange of their persona's owner by now, the owner's
-- exchanges of the same text within the tolerance. The first join is by user, personality and slot
-- of time, and a slot is as long as the times that a point allows, so a point has two at most.
INSERT INTO memsync_matches (source, kind, memory, anchor_id, message_id, user_id, personality_id,
                             persona_id, skewed, enriched)
SELECT p.source, p.kind, p.memory, a.id, u.id, a.user_id, a.personality_id, p.persona_id,
       true, t.more = 1
FROM (SELECT w.source, w.kind, w.memory, w.personality_id, w.persona_id, w.user_text,
             w.assistant_text, w.content, w.owner_id, w.first, w.last,
             unnest(ARRAY[w.first_slot, nullif(w.last_slot, w.first_slot)]) AS slot
      FROM (SELECT p.source, p.kind, p.memory, p.personality_id, p.persona_id, p.user_text,
                   p.assistant_text, p.content, o.owner_id, t.first, t.last,
                   date_bin(%(slot)s::interval, t.first, timestamp '2000-01-01') AS first_slot,
                   date_bin(%(slot)s::interval, t.last, timestamp '2000-01-01') AS last_slot
            FROM memsync_points p
            JOIN personas o ON o.id = p.persona_id
            CROSS JOIN LATERAL (SELECT p.earliest - %(tolerance)s::interval AS first,
                                       p.latest + %(tolerance)s::interval AS last) t
            WHERE NOT EXISTS (SELECT FROM memsync_matches m
                              WHERE m.memory = p.memory AND m.user_id = o.owner_id)) w) p
JOIN conversation_history a
  ON a.user_id = p.owner_id AND a.personality_id = p.personality_id
 AND date_bin(%(slot)s::interval, a.created_at, timestamp '2000-01-01') = p.slot
 AND a.created_at >= p.first AND a.created_at < p.last + interval '1 millisecond'
 AND a.role = 'assistant' AND {has_reply} AND {readable}
CROSS JOIN LATERAL ({before_reply}) u
CROSS JOIN LATERAL {says} t
WHERE u.role = 'user' AND t.more IS NOT NULL;

-- name: forget_points
-- Empties the table for the next points.
TRUNCATE memsync_points;

-- name: forget_verdicts
-- Empties the tables before the points are judged anew.
TRUNCATE memsync_verdicts, memsync_evidence;

-- name: judge_matches
-- Judges each exchange by the personas of its points: one of its user's (evidence), several of them
-- (ambiguous), only other users' (foreign), or only personas that do not exist (vanished). A point
-- speaks for the exchange that it resembles most. Where times differ, the two must be each other's
-- only choice, else the same was said repeatedly (repeated). Copies of a memory count once.
INSERT INTO memsync_verdicts (anchor_id, message_id, user_id, persona_id, source, verdict)
WITH owned AS (
    SELECT DISTINCT ON (m.memory, m.anchor_id)
           m.memory, m.anchor_id, m.message_id, m.user_id, m.persona_id, m.source, m.skewed,
           m.skewed::int * 2 + m.enriched::int AS distance,
           p.id IS NOT NULL AS known, p.owner_id IS NOT DISTINCT FROM m.user_id AS own
    FROM memsync_matches m LEFT JOIN personas p ON p.id = m.persona_id
    ORDER BY m.memory, m.anchor_id, m.skewed, m.source
), nearest AS (
    SELECT memory, anchor_id, message_id, user_id, persona_id, source, skewed, distance, known, own,
           min(distance) FILTER (WHERE own) OVER (PARTITION BY memory) AS least
    FROM owned
), chosen AS (
    SELECT memory, anchor_id, message_id, user_id, persona_id, source, skewed, known, own,
           count(*) FILTER (WHERE own) OVER (PARTITION BY memory) AS exchanges,
           bool_and(skewed) FILTER (WHERE own) OVER (PARTITION BY anchor_id) AS all_skewed
    FROM nearest WHERE NOT own OR distance = least
)
SELECT anchor_id, (array_agg(message_id))[1], (array_agg(user_id))[1],
       (array_agg(persona_id) FILTER (WHERE own))[1], min(source) FILTER (WHERE own),
       CASE WHEN count(DISTINCT message_id) > 1 THEN 'ambiguous'
            WHEN count(DISTINCT persona_id) FILTER (WHERE own) > 1 THEN 'ambiguous'
            WHEN all_skewed AND (count(DISTINCT memory) FILTER (WHERE own) > 1
                                 OR max(exchanges) FILTER (WHERE own) > 1) THEN 'repeated'
            WHEN bool_or(own) THEN 'evidence'
            WHEN bool_or(known) THEN 'foreign'
            ELSE 'vanished' END
FROM chosen WHERE NOT own OR NOT skewed OR all_skewed
GROUP BY anchor_id, all_skewed;

-- name: analyze_verdicts
-- Counts the verdicts for the planner, so that it joins in one pass over the history.
ANALYZE memsync_verdicts;

-- name: list_evidence
-- Both messages of every exchange that evidence decides, unless they are decided by now.
INSERT INTO memsync_evidence (number, history_id, user_id, personality_id, persona_id, source)
SELECT row_number() OVER (), h.id, h.user_id, h.personality_id, v.persona_id, v.source
FROM memsync_verdicts v
CROSS JOIN LATERAL (VALUES (v.anchor_id), (v.message_id)) AS e(history_id)
JOIN ({open}) h ON h.id = e.history_id AND h.user_id = v.user_id
WHERE v.verdict = 'evidence';

-- name: analyze_evidence
-- Tells the planner how many messages evidence decides.
ANALYZE memsync_evidence;

-- name: evidence_verdicts
-- How many exchanges got each verdict.
SELECT verdict, count(*) AS exchanges FROM memsync_verdicts GROUP BY verdict;

-- name: evidence_rows
-- How many messages evidence decides.
SELECT count(*) AS total FROM memsync_evidence;

-- name: evidence_by_kind
-- How many points of each kind of collection resemble an exchange of their persona's owner, and how
-- many of them name another persona than today's settings.
SELECT m.kind, count(DISTINCT m.source) AS matched,
       count(DISTINCT m.source) FILTER (
           WHERE coalesce(o.persona_id, d.persona_id) <> m.persona_id) AS contradicting
FROM memsync_matches m
JOIN personas p ON p.id = m.persona_id AND p.owner_id = m.user_id
LEFT JOIN ({override}) o ON o.user_id = m.user_id AND o.personality_id = m.personality_id
LEFT JOIN ({default}) d ON d.user_id = m.user_id
GROUP BY m.kind;

-- name: evidence_against_settings
-- The first messages for which evidence and settings name different personas, and how many.
SELECT e.history_id, e.persona_id AS by_evidence,
       coalesce(o.persona_id, d.persona_id) AS by_settings, e.source, count(*) OVER () AS total
FROM memsync_evidence e
LEFT JOIN ({override}) o USING (user_id, personality_id)
LEFT JOIN ({default}) d USING (user_id)
WHERE coalesce(o.persona_id, d.persona_id) <> e.persona_id
ORDER BY e.history_id LIMIT %(limit)s;

-- name: evidence_against_rows
-- The first messages that have another persona than evidence says, and how many.
SELECT e.history_id, e.persona_id AS by_evidence, h.persona_id, e.source, count(*) OVER () AS total
FROM memsync_evidence e JOIN conversation_history h ON h.id = e.history_id
WHERE h.persona_id <> e.persona_id
ORDER BY e.history_id LIMIT %(limit)s;

-- name: kept_evidence
-- How many messages have a decision by evidence.
SELECT count(*) AS total FROM memsync.row_archive WHERE reason = 'evidence';

-- name: keep_evidence
-- Archives a batch of the decisions, for rows that nothing else has decided by now.
INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason, source)
SELECT h.id, h.user_id, e.persona_id, 'evidence', e.source
FROM memsync_evidence e
JOIN conversation_history h
  ON h.id = e.history_id AND h.user_id = e.user_id AND h.persona_id IS NULL
JOIN personas p ON p.id = e.persona_id AND p.owner_id = h.user_id
WHERE e.number >= %(start)s AND e.number < %(stop)s
ON CONFLICT (history_id) DO NOTHING;
