-- The persona of a (user, personality) by the settings, and the messages still to be decided.

-- fragment: override_old
-- The persona that a user chose for one personality, before the redesign.
SELECT user_id, personality_id, persona_id FROM user_personality_settings
WHERE persona_id IS NOT NULL;

-- fragment: override_new
-- The same after the redesign.
SELECT user_id, personality_id, persona_id FROM user_personality_configs
WHERE persona_id IS NOT NULL;

-- fragment: default_old
-- A user's default persona, before the redesign.
SELECT id AS user_id, global_persona_id AS persona_id FROM users
WHERE global_persona_id IS NOT NULL;

-- fragment: default_new
-- The same after the redesign.
SELECT user_id, persona_id FROM user_default_personas;

-- fragment: override_both
-- The same while the redesign is half done: a row of the new table counts before an old one.
SELECT user_id, personality_id, persona_id FROM user_personality_configs
WHERE persona_id IS NOT NULL
UNION ALL
SELECT user_id, personality_id, persona_id FROM user_personality_settings s
WHERE persona_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM user_personality_configs c
                  WHERE c.user_id = s.user_id AND c.personality_id = s.personality_id);

-- fragment: default_both
-- The same while the redesign is half done.
SELECT u.id AS user_id, coalesce(d.persona_id, u.global_persona_id) AS persona_id
FROM users u LEFT JOIN user_default_personas d ON d.user_id = u.id
WHERE coalesce(d.persona_id, u.global_persona_id) IS NOT NULL;

-- fragment: open_all
-- The messages whose persona is still to be decided: all of them, before there is a persona_id.
SELECT id, personality_id, user_id
FROM conversation_history;

-- fragment: open_unfilled
-- The same once the column exists: those without a persona.
SELECT id, personality_id, user_id
FROM conversation_history WHERE persona_id IS NULL;

-- fragment: written_since
-- Whether the row h was written after persona_id was last taken back, so that earlier decisions do
-- not count for it. NULL where persona_id was never taken back.
h.created_at >= (SELECT max(coalesce(ended_at, started_at)) FROM memsync.runs
                 WHERE verb = 'rollback' AND phase = 'expand') AT TIME ZONE 'UTC';

-- fragment: open_undecided
-- The same once decisions are kept: those without a persona or a decision. A decision whose
-- persona was deleted is taken again, so it does not count.
SELECT id, personality_id, user_id
FROM conversation_history h
WHERE persona_id IS NULL
  AND NOT EXISTS (SELECT FROM memsync.persona_map m
                  JOIN personas p ON p.id = m.persona_id
                  WHERE m.user_id = h.user_id AND m.personality_id = h.personality_id
                    AND ({written_since}) IS NOT TRUE)
  AND NOT EXISTS (SELECT FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id
                  WHERE a.history_id = h.id);

-- fragment: by_evidence_unread
-- The messages that evidence decides, when none was read.
SELECT NULL::uuid AS history_id WHERE false;

-- fragment: by_evidence_read
-- The same when it was read: evidence.sql makes the table memsync_evidence.
SELECT history_id FROM memsync_evidence;

-- fragment: left_open
-- The messages that are left for the settings to decide.
SELECT o.user_id, o.personality_id FROM ({open}) o
WHERE NOT EXISTS (SELECT FROM ({by_evidence}) t WHERE t.history_id = o.id);

-- fragment: persona_uses
-- The users of each persona: by default, or by a choice for a personality.
SELECT user_id, persona_id FROM ({override}) o
UNION SELECT user_id, persona_id FROM ({default}) d;

-- fragment: quarantined
-- The personas that a run is about to quarantine: none, unless it is told to.
SELECT NULL::uuid AS persona_id WHERE false;

-- fragment: quarantined_orphans
-- The same for a run that is told to: those without an owner that not exactly one user uses.
SELECT p.id AS persona_id FROM personas p LEFT JOIN ({persona_uses}) s ON s.persona_id = p.id
WHERE p.owner_id IS NULL GROUP BY p.id HAVING count(s.user_id) <> 1;

-- name: any_open
-- Whether a message is still to be decided.
SELECT EXISTS (SELECT FROM ({open}) o) AS found;

-- name: pairs_by_settings
-- How many (user, personality) pairs with messages each rule of the settings decides today, with
-- row counts. The caller names the fragments for {open}, {by_evidence}, {override} and {default}
-- that fit this schema.
SELECT CASE WHEN o.persona_id IS NOT NULL THEN 'override'
            WHEN d.persona_id IS NOT NULL THEN 'default'
            ELSE 'unresolved' END AS reason,
       count(*) AS pairs, sum(p.rows_count)::bigint AS rows_count
FROM (SELECT user_id, personality_id, count(*) AS rows_count FROM ({left_open}) l GROUP BY 1, 2) p
LEFT JOIN ({override}) o USING (user_id, personality_id)
LEFT JOIN ({default}) d USING (user_id)
GROUP BY 1 ORDER BY 1;

-- name: unresolved_users
-- Users with messages for which neither an override nor a default names a persona. Users with a
-- default are left out first, so that the messages of most users need not be read. A persona that
-- is about to be quarantined does not count.
WITH gone AS MATERIALIZED ({quarantined}),
lacking AS MATERIALIZED (
    SELECT u.id, u.username FROM users u
    WHERE NOT EXISTS (SELECT FROM ({default}) d
                      WHERE d.user_id = u.id AND d.persona_id IS NOT NULL
                        AND NOT EXISTS (SELECT FROM gone g
                                        WHERE g.persona_id = d.persona_id))
)
SELECT u.id AS user_id, u.username, count(*) AS rows_count
FROM lacking u
JOIN ({left_open}) l ON l.user_id = u.id
LEFT JOIN ({override}) o ON o.user_id = l.user_id AND o.personality_id = l.personality_id
                        AND NOT EXISTS (SELECT FROM gone g WHERE g.persona_id = o.persona_id)
WHERE o.persona_id IS NULL
GROUP BY u.id, u.username ORDER BY u.id;
