-- Evidence of which persona spoke: the memories that were made from the exchanges.

-- name: make_points
-- The points that were read, a row each, with the first and the last millisecond that their time
-- may mean.
-- lint: allow TEMP the evidence that was read belongs to this run alone
CREATE TEMP TABLE memsync_points (
    earliest timestamp NOT NULL, latest timestamp NOT NULL, personality_id uuid NOT NULL,
    persona_id uuid NOT NULL, user_text text, assistant_text text, content text,
    source text NOT NULL);

-- name: make_matches
-- The exchange that a point was made from: its anchor, the user's message before it, and the
-- persona that the point names.
-- lint: allow TEMP the evidence that was read belongs to this run alone
CREATE TEMP TABLE memsync_matches (
    anchor_id uuid NOT NULL, message_id uuid NOT NULL, user_id uuid NOT NULL,
    persona_id uuid NOT NULL, source text NOT NULL);

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
-- Turns nested loops off until the transaction ends. A new column has no statistics, so the planner
-- would expect few rows with persona_id NULL, and look each match up on its own.
SELECT set_config('enable_nestloop', 'off', true);

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

-- fragment: same_user
-- The thread is that of one user, because the history is not read by persona yet.
p.user_id = a.user_id;

-- name: match_points
-- Finds the exchanges that the points were made from, among the undecided messages. The fragment
-- `exchange` defines an exchange; here its thread is that of one user, so the caller names the
-- fragment `same_user` for {same_speaker}.
INSERT INTO memsync_matches (anchor_id, message_id, user_id, persona_id, source)
SELECT a.id, u.id, a.user_id, p.persona_id, p.source
FROM memsync_points p
JOIN ({open}) a
  ON a.personality_id = p.personality_id
 AND date_trunc('second', a.created_at) = date_trunc('second', p.earliest)
 AND a.created_at >= p.earliest AND a.created_at < p.latest + interval '1 millisecond'
 AND a.role = 'assistant'
CROSS JOIN LATERAL ({before_reply}) u
WHERE u.role = 'user' AND {agrees};

-- name: forget_points
-- Empties the table for the next points.
TRUNCATE memsync_points;

-- name: forget_verdicts
-- Empties the tables before the points are judged anew.
TRUNCATE memsync_verdicts, memsync_evidence;

-- name: judge_matches
-- Judges each exchange by the personas of its points: one of its user's (evidence), several of them
-- (ambiguous), only other users' (foreign), or only personas that do not exist (vanished).
INSERT INTO memsync_verdicts (anchor_id, message_id, user_id, persona_id, source, verdict)
SELECT anchor_id, (array_agg(message_id))[1], (array_agg(user_id))[1],
       (array_agg(persona_id) FILTER (WHERE own))[1], min(source) FILTER (WHERE own),
       CASE WHEN count(DISTINCT message_id) > 1 THEN 'ambiguous'
            WHEN count(DISTINCT persona_id) FILTER (WHERE own) > 1 THEN 'ambiguous'
            WHEN bool_or(own) THEN 'evidence'
            WHEN bool_or(known) THEN 'foreign'
            ELSE 'vanished' END
FROM (SELECT m.anchor_id, m.message_id, m.user_id, m.persona_id, m.source,
             p.id IS NOT NULL AS known, p.owner_id IS NOT DISTINCT FROM m.user_id AS own
      FROM memsync_matches m LEFT JOIN personas p ON p.id = m.persona_id) m
GROUP BY anchor_id;

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

-- name: evidence_against_settings
-- The first messages for which evidence and settings name different personas, and how many.
SELECT e.history_id, e.persona_id AS by_evidence,
       coalesce(o.persona_id, d.persona_id) AS by_settings, e.source, count(*) OVER () AS total
FROM memsync_evidence e
LEFT JOIN ({override}) o USING (user_id, personality_id)
LEFT JOIN ({default}) d USING (user_id)
WHERE coalesce(o.persona_id, d.persona_id) <> e.persona_id
ORDER BY e.history_id LIMIT %(limit)s;

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
