-- Every statement that memsync runs against Postgres outside migrations, by name.
-- Parameters are psycopg's %(name)s. The app's tables are found by the connection's search_path;
-- memsync's own are always written with their schema.


-- ------------------------------------------------------------------ session

-- name: instance_id
-- Which database this is: the id that it was given when memsync's schema was made.
SELECT id FROM memsync.instance;

-- name: try_lock
-- Takes a session-level advisory lock if it is free; never waits.
SELECT pg_try_advisory_lock(%(key)s) AS taken;

-- name: unlock
-- Lets an advisory lock go.
SELECT pg_advisory_unlock(%(key)s);

-- name: no_timeouts
-- Lifts what a role or database limits its clients to: long steps are long on purpose.
-- Asked of pg_settings, for not every version has all of them.
SELECT set_config(name, '0', false) FROM pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout',
               'idle_in_transaction_session_timeout', 'idle_session_timeout');

-- name: serving_pid
-- The process that serves this session now.
SELECT pg_backend_pid() AS pid;

-- name: search_path
-- The schemas in which this session finds the app's tables.
SELECT current_schemas(false)::text[] AS schemas;

-- name: lock_holders
-- Sessions that hold an advisory lock of ours, for the message to the one that does not get it.
SELECT a.pid, coalesce(to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS "UTC"'), '?') AS since
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND (l.classid::bigint << 32) | l.objid::bigint = %(key)s
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- name: blockers
-- Who holds or awaits a lock on the table, oldest transaction first, and what they are running.
SELECT a.pid, coalesce(a.state, 'of another role') AS state, left(a.query, 200) AS query,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float AS open_s
FROM pg_stat_activity a
WHERE a.pid <> pg_backend_pid()
  AND EXISTS (SELECT FROM pg_locks l
              WHERE l.pid = a.pid AND l.relation = to_regclass(%(relation)s)
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY a.xact_start
LIMIT 5;


-- ------------------------------------------------------------------ catalog

-- name: relations
-- Which of the named relations exist on the search path.
SELECT name FROM unnest(%(names)s::text[]) AS name WHERE to_regclass(name) IS NOT NULL;

-- name: columns
-- The columns of a table in their order, and whether each must hold a value.
SELECT attname AS name, attnotnull AS not_null
FROM pg_attribute
WHERE attrelid = to_regclass(%(relation)s) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum;

-- name: own_schema
-- Whether memsync's schema stands.
SELECT to_regnamespace('memsync') IS NOT NULL AS there;
-- name: insertable
-- The columns of a table that an INSERT may name, in their order.
SELECT attname AS name FROM pg_attribute
WHERE attrelid = to_regclass(%(relation)s) AND attnum > 0 AND NOT attisdropped
  AND attgenerated = '' AND attidentity <> 'a'
ORDER BY attnum;

-- name: schema_of
-- The schema in which the search path finds a relation.
SELECT n.nspname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(%(relation)s);

-- name: indexes
-- The indexes of a table, and whether each is complete and usable.
SELECT c.relname AS name, i.indisvalid AND i.indisready AS valid
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(%(relation)s);

-- name: constraints
-- The constraints of a table, and whether each is known to hold for every row.
SELECT conname AS name, convalidated AS valid
FROM pg_constraint WHERE conrelid = to_regclass(%(relation)s);

-- name: triggers
-- The triggers on a table that users made.
SELECT tgname AS name FROM pg_trigger
WHERE tgrelid = to_regclass(%(relation)s) AND NOT tgisinternal;

-- name: objects_of
-- What the named relations are and have, as far as it is valid: relation (its relkind), column,
-- not null, index, constraint, trigger.
WITH named AS (
    SELECT c.oid, n.name AS relation, c.relkind
    FROM unnest(%(names)s::text[]) AS n(name) JOIN pg_class c ON c.oid = to_regclass(n.name))
SELECT relation, 'relation' AS kind, relkind::text AS name FROM named
UNION ALL
SELECT n.relation, v.kind, a.attname::text
FROM named n JOIN pg_attribute a ON a.attrelid = n.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN LATERAL (VALUES ('column', true), ('not null', a.attnotnull)) AS v(kind, holds)
WHERE v.holds
UNION ALL
SELECT n.relation, 'index', c.relname::text
FROM named n JOIN pg_index i ON i.indrelid = n.oid JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indisvalid AND i.indisready
UNION ALL
SELECT n.relation, 'constraint', k.conname::text
FROM named n JOIN pg_constraint k ON k.conrelid = n.oid
UNION ALL
SELECT n.relation, 'trigger', t.tgname::text
FROM named n JOIN pg_trigger t ON t.tgrelid = n.oid WHERE NOT t.tgisinternal;

-- name: columns_of
-- The columns of the named relations: their types, and whether an INSERT must give a value.
SELECT n.name AS relation, a.attname AS name, format_type(a.atttypid, NULL) AS type,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS must_be_given
FROM unnest(%(names)s::text[]) AS n(name)
JOIN pg_attribute a ON a.attrelid = to_regclass(n.name) AND a.attnum > 0 AND NOT a.attisdropped;

-- name: unique_keys
-- The valid unique indexes of the named relations; partial: of some rows or of expressions.
SELECT n.name AS relation, i.indpred IS NOT NULL OR i.indexprs IS NOT NULL AS partial,
       array(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[:i.indnkeyatts - 1]))
           AS columns
FROM unnest(%(names)s::text[]) AS n(name) JOIN pg_index i ON i.indrelid = to_regclass(n.name)
WHERE i.indisunique AND i.indisvalid;

-- name: redesign_notes
-- What memsync made and dropped of the redesign.
SELECT piece, did FROM memsync.redesign;

-- name: history_size
-- Rows (the planner's estimate) and bytes of the history with its indexes.
SELECT greatest(reltuples, 0)::bigint AS rows_estimated,
       pg_total_relation_size(oid) AS bytes_total,
       pg_relation_size(oid) / current_setting('block_size')::int AS blocks
FROM pg_class WHERE oid = to_regclass('conversation_history');

-- name: history_has_null_persona
-- Whether any message is without a persona. Quick once persona_id is indexed.
SELECT EXISTS (SELECT FROM conversation_history WHERE persona_id IS NULL) AS found;

-- name: server_version
-- The server's version as one number, 150004 for 15.4.
SELECT current_setting('server_version_num')::int AS number;


-- ------------------------------------------------------------------ migration: who was it

-- fragment: override_legacy
-- The persona that a user chose for one personality, before the redesign.
SELECT user_id, personality_id, persona_id FROM user_personality_settings
WHERE persona_id IS NOT NULL;

-- fragment: override_redesigned
-- The same after the redesign.
SELECT user_id, personality_id, persona_id FROM user_personality_configs
WHERE persona_id IS NOT NULL;

-- fragment: default_legacy
-- A user's default persona, before the redesign.
SELECT id AS user_id, global_persona_id AS persona_id FROM users
WHERE global_persona_id IS NOT NULL;

-- fragment: default_redesigned
-- The same after the redesign.
SELECT user_id, persona_id FROM user_default_personas;

-- fragment: override_both
-- The same while the redesign is half done: who is in the new table is there with all they chose.
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
-- The messages whose persona is to be decided: before there is a persona_id, all of them.
SELECT id, channel_id, personality_id, user_id, role, content, created_at
FROM conversation_history;

-- fragment: open_unfilled
-- The same where the column is there: those without a persona.
SELECT id, channel_id, personality_id, user_id, role, content, created_at
FROM conversation_history WHERE persona_id IS NULL;

-- fragment: open_undecided
-- The same once decisions are kept: those without a persona or a decision.
SELECT id, channel_id, personality_id, user_id, role, content, created_at
FROM conversation_history h
WHERE persona_id IS NULL
  AND NOT EXISTS (SELECT FROM memsync.persona_map m
                  WHERE m.user_id = h.user_id AND m.personality_id = h.personality_id)
  AND NOT EXISTS (SELECT FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id
                  WHERE a.history_id = h.id);

-- fragment: told_by_nobody
-- The messages that evidence decides, where none was read.
SELECT NULL::uuid AS history_id WHERE false;

-- fragment: told_by_evidence
-- The same where it was: see memsync_evidence below.
SELECT history_id FROM memsync_evidence;

-- fragment: open_pairs
-- The (user, personality) pairs that are left for the settings to decide, with row counts.
SELECT user_id, personality_id, count(*) AS rows_count
FROM ({open}) o
WHERE NOT EXISTS (SELECT FROM ({told}) t WHERE t.history_id = o.id)
GROUP BY user_id, personality_id;

-- name: pairs_by_settings
-- What the settings say today of the (user, personality) pairs that have messages, with row counts.
-- The caller names the fragments for {open}, {told}, {override} and {default} that fit this schema.
SELECT CASE WHEN o.persona_id IS NOT NULL THEN 'override'
            WHEN d.persona_id IS NOT NULL THEN 'default'
            ELSE 'unresolved' END AS reason,
       count(*) AS pairs, sum(p.rows_count)::bigint AS rows_count
FROM ({open_pairs}) p
LEFT JOIN ({override}) o USING (user_id, personality_id)
LEFT JOIN ({default}) d USING (user_id)
GROUP BY 1 ORDER BY 1;

-- name: unresolved_users
-- Users with messages for which neither an override nor a default names a persona.
SELECT u.id AS user_id, u.username, sum(p.rows_count)::bigint AS rows_count
FROM ({open_pairs}) p
JOIN users u ON u.id = p.user_id
LEFT JOIN ({override}) o ON o.user_id = p.user_id AND o.personality_id = p.personality_id
LEFT JOIN ({default}) d ON d.user_id = p.user_id
WHERE o.persona_id IS NULL AND d.persona_id IS NULL
GROUP BY u.id, u.username ORDER BY u.id;

-- name: create_default_persona
-- Gives one user a default persona unless there is one by now; see memsync.create_default_persona.
SELECT memsync.create_default_persona(%(user_id)s) AS persona_id;

-- name: freeze_map
-- Decides, once, who the persona of each (user, personality) was, and keeps what the settings said.
-- Pairs whose messages have personas already are decided too: the proof compares. Returns the users
-- of messages that have neither a persona nor a decision: one scan answers both.
WITH pairs AS MATERIALIZED (
    SELECT p.user_id, p.personality_id, p.rows_count, p.has_open,
           o.persona_id AS override, d.persona_id AS fallback
    FROM (SELECT h.user_id, h.personality_id, count(*) AS rows_count,
                 bool_or(h.persona_id IS NULL AND k.history_id IS NULL) AS has_open
          FROM conversation_history h
          LEFT JOIN ({archived_personas}) k ON k.history_id = h.id
          GROUP BY h.user_id, h.personality_id) p
    LEFT JOIN memsync.persona_override o USING (user_id, personality_id)
    LEFT JOIN memsync.persona_default d USING (user_id)
), decided AS (
    INSERT INTO memsync.persona_map
           (user_id, personality_id, persona_id, reason, override_persona_id, default_persona_id,
            rows_count)
    SELECT p.user_id, p.personality_id, coalesce(p.override, p.fallback),
           CASE WHEN p.override IS NOT NULL THEN 'override'
                WHEN c.user_id IS NOT NULL THEN 'created'
                ELSE 'default' END,
           p.override, p.fallback, p.rows_count
    FROM pairs p
    LEFT JOIN memsync.created_persona c
           ON c.user_id = p.user_id AND c.persona_id = p.fallback
    WHERE coalesce(p.override, p.fallback) IS NOT NULL
    ON CONFLICT (user_id, personality_id) DO NOTHING
)
SELECT DISTINCT p.user_id
FROM pairs p LEFT JOIN memsync.persona_map m USING (user_id, personality_id)
WHERE p.has_open AND coalesce(p.override, p.fallback) IS NULL AND m.user_id IS NULL
ORDER BY p.user_id;

-- name: thaw_vanished
-- Forgets decisions whose persona was deleted since, so that they are taken anew.
WITH gone AS (DELETE FROM memsync.row_archive a
              WHERE NOT EXISTS (SELECT FROM personas p WHERE p.id = a.persona_id))
DELETE FROM memsync.persona_map m
WHERE NOT EXISTS (SELECT FROM personas p WHERE p.id = m.persona_id);

-- name: analyze_history
-- Lets the planner know that no message is without a persona, so that it looks in the index.
ANALYZE conversation_history (persona_id);

-- name: analyze_decisions
-- Lets the planner know how many there are, so that a batch looks them up instead of hashing them.
ANALYZE memsync.persona_map, memsync.row_archive;


-- ------------------------------------------------------------------ migration: evidence

-- name: make_points
-- What was read of the memories: one row a point, with the first and the last millisecond that
-- its time may mean.
-- lint: allow TEMP what was read of the memories is the run's own
CREATE TEMP TABLE memsync_points (
    said_from timestamp NOT NULL, said_to timestamp NOT NULL, personality_id uuid NOT NULL,
    persona_id uuid NOT NULL, content text NOT NULL, source text NOT NULL);

-- name: make_matches
-- Which exchange a point was made from: anchor, the user's message before it, and who spoke.
-- lint: allow TEMP what was read of the memories is the run's own
CREATE TEMP TABLE memsync_matches (
    anchor_id uuid NOT NULL, message_id uuid NOT NULL, user_id uuid NOT NULL,
    persona_id uuid NOT NULL, source text NOT NULL);

-- name: make_verdicts
-- What the points of one exchange say together.
-- lint: allow TEMP what was read of the memories is the run's own
CREATE TEMP TABLE memsync_verdicts (
    anchor_id uuid NOT NULL, message_id uuid NOT NULL, user_id uuid NOT NULL,
    persona_id uuid, source text, verdict text NOT NULL);

-- name: make_evidence
-- The messages that evidence decides, numbered so that they can be written in batches.
-- lint: allow TEMP what was read of the memories is the run's own
CREATE TEMP TABLE memsync_evidence (
    number bigint PRIMARY KEY, history_id uuid NOT NULL, user_id uuid NOT NULL,
    personality_id uuid NOT NULL, persona_id uuid NOT NULL, source text NOT NULL);

-- name: analyze_points
-- So that the planner joins in one pass over the history.
ANALYZE memsync_points;

-- name: join_in_one_pass
-- A column that was just added has no statistics: the planner would take "persona_id IS NULL" for
-- a few rows and look each match up on its own. Until the transaction ends.
SELECT set_config('enable_nestloop', 'off', true);

-- fragment: agrees
-- Whether the text of point p is the exchange of message u and reply a: canonical, or as deployed,
-- `User (<name>): <message>` and `<personality>: <reply>`, read from its end, whatever the names.
-- stores.deployed says the same in Python; one test holds the two together.
(SELECT p.content = 'user: ' || u.content || E'\nassistant: ' || a.content
     OR starts_with(p.content, 'User (')
        AND right(p.content, length(a.content) + 2) = ': ' || a.content
        AND length(t.personality) BETWEEN 1 AND length(h.head) - 1
        AND right(s.said, length(u.content) + 3) = '): ' || u.content
        AND strpos(substr(s.said, 1, length(s.said) - length(u.content) - 3), E'\n') = 0
 FROM (SELECT left(p.content, -(length(a.content) + 2)) AS head) h,
      LATERAL (SELECT split_part(h.head, E'\n', -1) AS personality) t,
      LATERAL (SELECT left(h.head, -(length(t.personality) + 1)) AS said) s);

-- name: text_agrees
-- The same of three given texts.
SELECT coalesce({agrees}, false) AS agrees
FROM (SELECT %(content)s::text AS content) p, (SELECT %(user_text)s::text AS content) u,
     (SELECT %(assistant_text)s::text AS content) a;

-- name: match_points
-- Finds the exchanges that the points were made from, among messages that nothing has decided yet.
-- An exchange is as in the fragment `exchange`, its thread being the user's.
INSERT INTO memsync_matches (anchor_id, message_id, user_id, persona_id, source)
SELECT a.id, u.id, a.user_id, p.persona_id, p.source
FROM memsync_points p
JOIN ({open}) a
  ON a.personality_id = p.personality_id
 AND date_trunc('second', a.created_at) = date_trunc('second', p.said_from)
 AND a.created_at >= p.said_from AND a.created_at < p.said_to + interval '1 millisecond'
 AND a.role = 'assistant'
CROSS JOIN LATERAL (
    SELECT b.id, b.role, b.content FROM conversation_history b
    WHERE b.channel_id = a.channel_id AND b.personality_id = a.personality_id
      AND b.user_id = a.user_id AND (b.created_at, b.id) < (a.created_at, a.id)
    ORDER BY b.created_at DESC, b.id DESC LIMIT 1) u
WHERE u.role = 'user' AND {agrees};

-- name: forget_points
-- Makes room for the next points.
TRUNCATE memsync_points;

-- name: forget_verdicts
-- Before the points are judged anew.
TRUNCATE memsync_verdicts, memsync_evidence;

-- name: judge_matches
-- What the points of each exchange say: one persona of its user, or several (ambiguous); only
-- personas of others (foreign); only personas that do not exist (vanished).
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
-- So that the planner joins them with the history in one pass.
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
-- So that the planner knows how many messages evidence decides.
ANALYZE memsync_evidence;

-- name: evidence_verdicts
-- How many exchanges got each verdict.
SELECT verdict, count(*) AS exchanges FROM memsync_verdicts GROUP BY verdict;

-- name: evidence_rows
-- How many messages evidence decides.
SELECT count(*) AS total FROM memsync_evidence;

-- name: evidence_against_settings
-- The first messages of which evidence and today's settings say different things, and how many.
SELECT e.history_id, e.persona_id AS by_evidence,
       coalesce(o.persona_id, d.persona_id) AS by_settings, e.source, count(*) OVER () AS total
FROM memsync_evidence e
LEFT JOIN ({override}) o USING (user_id, personality_id)
LEFT JOIN ({default}) d USING (user_id)
WHERE coalesce(o.persona_id, d.persona_id) <> e.persona_id
ORDER BY e.history_id LIMIT %(limit)s;

-- name: keep_evidence
-- Keeps some of what evidence decides, for rows that nothing else has decided by now.
INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason, source)
SELECT h.id, h.user_id, e.persona_id, 'evidence', e.source
FROM memsync_evidence e
JOIN conversation_history h
  ON h.id = e.history_id AND h.user_id = e.user_id AND h.persona_id IS NULL
JOIN personas p ON p.id = e.persona_id AND p.owner_id = h.user_id
WHERE e.number >= %(start)s AND e.number < %(stop)s
ON CONFLICT (history_id) DO NOTHING;


-- ------------------------------------------------------------------ migration: redesign

-- name: size_configs
-- Gives each config the window that it had before the way back, if one of its personalities still
-- has it, else the one that most of them have.
UPDATE llm_configs c SET context_window_size = m.window_size
FROM (SELECT DISTINCT ON (p.config_id) p.config_id, p.window_size
      FROM (SELECT coalesce(d.llm_config_id, p.llm_config_id) AS config_id,
                   p.context_window_size AS window_size
            FROM personalities p
            LEFT JOIN personality_default_configs d ON d.personality_id = p.id) p
      LEFT JOIN memsync.column_archive a
             ON a.piece = 'llm_configs.context_window_size' AND a.id = p.config_id
      WHERE p.config_id IS NOT NULL
      GROUP BY p.config_id, p.window_size, a.said
      ORDER BY p.config_id, a.said = to_jsonb(p.window_size) DESC NULLS LAST, count(*) DESC,
               p.window_size) m
WHERE c.id = m.config_id AND c.context_window_size <> m.window_size;

-- name: note_sized
-- Notes that it was done: what was placed since must keep its window.
INSERT INTO memsync.redesign (piece, did) VALUES ('sized', 'made') ON CONFLICT DO NOTHING;

-- name: take_placed
-- Gives the personalities the configs that the app itself placed.
UPDATE personalities p SET llm_config_id = d.llm_config_id FROM personality_default_configs d
WHERE d.personality_id = p.id AND p.llm_config_id IS DISTINCT FROM d.llm_config_id;

-- name: place_configs
-- Places the configs of the next personalities, in the order of their ids: the mirror's trigger
-- does it, as for any other change.
WITH batch AS (
    SELECT p.id FROM personalities p
    WHERE p.llm_config_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM personality_default_configs d WHERE d.personality_id = p.id)
    ORDER BY p.id LIMIT %(limit)s)
UPDATE personalities SET llm_config_id = llm_config_id WHERE id IN (SELECT id FROM batch);

-- name: copying
-- Lets this transaction's writes pass the mirror by.
SELECT set_config('memsync.copying', 'on', true);

-- name: copy_defaults
-- Copies the defaults of the next users, in the order of their ids. Their rows are locked, so that
-- none changes between the reading and the writing.
WITH batch AS (
    SELECT id, global_persona_id, updated_at FROM users
    WHERE %(after)s::uuid IS NULL OR id > %(after)s
    ORDER BY id LIMIT %(limit)s FOR SHARE),
copied AS (
    INSERT INTO user_default_personas (user_id, persona_id, updated_at)
    SELECT id, global_persona_id, updated_at FROM batch WHERE global_persona_id IS NOT NULL
    ON CONFLICT (user_id) DO NOTHING)
SELECT max(id::text)::uuid AS last FROM batch;

-- name: lock_users
-- Locks the next users, in the order of their ids.
WITH batch AS (
    SELECT id FROM users WHERE %(after)s::uuid IS NULL OR id > %(after)s
    ORDER BY id LIMIT %(limit)s FOR NO KEY UPDATE)
SELECT max(id::text)::uuid AS last FROM batch;

-- name: copy_defaults_back
-- Gives locked users the defaults that user_default_personas says.
UPDATE users u SET global_persona_id = d.persona_id FROM user_default_personas d
WHERE d.user_id = u.id AND u.id <= %(last)s AND (%(after)s::uuid IS NULL OR u.id > %(after)s)
  AND u.global_persona_id IS DISTINCT FROM d.persona_id;

-- name: settle_defaults
-- Says again to the mirror what a user's old column says and the new table does not.
UPDATE users SET global_persona_id = global_persona_id
WHERE id IN (SELECT u.id
             FROM users u LEFT JOIN user_default_personas d ON d.user_id = u.id
             WHERE u.global_persona_id IS DISTINCT FROM d.persona_id);

-- name: settle_configs
-- The same of a personality and its config.
UPDATE personalities SET llm_config_id = llm_config_id
WHERE id IN (SELECT p.id FROM personalities p
             LEFT JOIN personality_default_configs d ON d.personality_id = p.id
             WHERE p.llm_config_id IS DISTINCT FROM d.llm_config_id);

-- name: settle_windows
-- The same of a personality and its window.
UPDATE personalities p SET context_window_size = p.context_window_size
FROM llm_configs c
WHERE c.id = p.llm_config_id AND c.context_window_size <> p.context_window_size;

-- name: copy_configs_back
-- Gives the personalities the configs, and their windows, that personality_default_configs says.
UPDATE personalities p SET llm_config_id = c.id, context_window_size = c.context_window_size
FROM personality_default_configs d JOIN llm_configs c ON c.id = d.llm_config_id
WHERE d.personality_id = p.id
  AND (p.llm_config_id, p.context_window_size) IS DISTINCT FROM (c.id, c.context_window_size);

-- name: restore_windows
-- Gives personalities without a config the window that they had.
UPDATE personalities p SET context_window_size = a.said::int FROM memsync.column_archive a
WHERE a.piece = 'personalities.context_window_size' AND a.id = p.id
  AND p.llm_config_id IS NULL AND p.context_window_size <> a.said::int;

-- name: forget_removed_choices
-- Removes from the old table of choices, before it comes back, what is no longer chosen.
DELETE FROM memsync.user_personality_settings s
WHERE NOT EXISTS (SELECT FROM user_personality_configs c
                  WHERE c.user_id = s.user_id AND c.personality_id = s.personality_id);

-- name: user_exists
-- Whether there is such a user.
SELECT EXISTS (SELECT FROM users WHERE id = %(user_id)s) AS found;

-- name: orphan_personas
-- Personas without an owner, and who uses each: as a default, or as a choice for a personality.
SELECT p.id, p.name,
       coalesce(array_agg(DISTINCT s.user_id) FILTER (WHERE s.user_id IS NOT NULL), '{}') AS users
FROM personas p
LEFT JOIN (SELECT user_id, persona_id FROM ({override}) o
           UNION SELECT user_id, persona_id FROM ({default}) d) s ON s.persona_id = p.id
WHERE p.owner_id IS NULL
GROUP BY p.id, p.name ORDER BY p.id;

-- name: give_owner
-- Gives a persona the owner that was decided, and keeps what stood before.
WITH given AS (
    UPDATE personas SET owner_id = %(owner_id)s WHERE id = %(persona_id)s AND owner_id IS NULL
    RETURNING id)
INSERT INTO memsync.orphan_persona (persona_id, decision, owner_id, said, uses)
SELECT p.id, %(decision)s, %(owner_id)s, to_jsonb(p), '[]' FROM personas p JOIN given USING (id)
ON CONFLICT (persona_id) DO UPDATE SET decision = excluded.decision, owner_id = excluded.owner_id;

-- name: quarantine_persona
-- Keeps a persona that nobody or several people own, with who used it.
INSERT INTO memsync.orphan_persona (persona_id, decision, said, uses)
SELECT p.id, 'quarantined', to_jsonb(p), coalesce((
    SELECT jsonb_agg(jsonb_build_object('user_id', s.user_id, 'personality_id', s.personality_id))
    FROM (SELECT user_id, personality_id, persona_id FROM ({override}) o
          UNION ALL SELECT user_id, NULL, persona_id FROM ({default}) d) s
    WHERE s.persona_id = p.id), '[]')
FROM personas p WHERE p.id = %(persona_id)s
ON CONFLICT (persona_id) DO UPDATE SET decision = 'quarantined', said = excluded.said,
                                       uses = excluded.uses;

-- name: lock_persona
-- Keeps others from referring to a persona, or owning it, until this transaction ends.
SELECT FROM personas WHERE id = %(persona_id)s AND owner_id IS NULL FOR UPDATE;

-- name: messages_of_persona
-- How many messages are attributed to a persona.
SELECT count(*) AS total FROM conversation_history WHERE persona_id = %(persona_id)s;

-- name: referrers_of_personas
-- Other tables of the app's whose rows would go, or change, with a persona.
SELECT k.conrelid::regclass::text AS relation, a.attname AS column
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
WHERE k.contype = 'f' AND k.confrelid = to_regclass('personas') AND k.conparentid = 0
  AND c.relname <> ALL (%(known)s)
ORDER BY 1, 2;

-- name: remove_persona
-- Takes a persona that was quarantined out of the app's table; whoever used it falls to the next
-- rule.
DELETE FROM personas WHERE id = %(persona_id)s AND owner_id IS NULL;

-- name: disown
-- Takes back the owners that were decided, where nobody changed them since.
UPDATE personas p SET owner_id = NULL FROM memsync.orphan_persona o
WHERE o.persona_id = p.id AND o.decision IN ('derived', 'assigned') AND p.owner_id = o.owner_id;

-- name: kept_personas
-- What the quarantined personas say.
SELECT said FROM memsync.orphan_persona WHERE decision = 'quarantined';

-- name: kept_forks
-- What the forks said that the way back removed; an owner who is gone is none.
SELECT f.said || jsonb_build_object('owner_id', (
           SELECT u.id FROM users u WHERE u.id::text = f.said ->> 'owner_id')) AS said
FROM memsync.config_fork f JOIN llm_configs c ON c.id = f.config_id
WHERE f.said IS NOT NULL;

-- name: restore_defaults
-- Gives them back to the users whose default they were and who have none now.
UPDATE users u SET global_persona_id = o.persona_id
FROM memsync.orphan_persona o CROSS JOIN jsonb_to_recordset(o.uses)
     AS s(user_id uuid, personality_id uuid)
WHERE o.decision = 'quarantined' AND s.personality_id IS NULL AND u.id = s.user_id
  AND u.global_persona_id IS NULL;

-- name: restore_new_defaults
-- The same where the app itself made user_default_personas, which stays.
INSERT INTO user_default_personas (user_id, persona_id, updated_at)
SELECT u.id, o.persona_id, timezone('UTC', clock_timestamp())
FROM memsync.orphan_persona o CROSS JOIN jsonb_to_recordset(o.uses)
     AS s(user_id uuid, personality_id uuid) JOIN users u ON u.id = s.user_id
WHERE o.decision = 'quarantined' AND s.personality_id IS NULL
ON CONFLICT (user_id) DO NOTHING;

-- name: restore_new_choices
-- The same for what users chose for one personality, where the app itself renamed that table.
UPDATE user_personality_configs c SET persona_id = o.persona_id
FROM memsync.orphan_persona o CROSS JOIN jsonb_to_recordset(o.uses)
     AS s(user_id uuid, personality_id uuid)
WHERE o.decision = 'quarantined' AND c.user_id = s.user_id
  AND c.personality_id = s.personality_id AND c.persona_id IS NULL;

-- name: restore_choices
-- The same for what users chose for one personality.
UPDATE user_personality_settings c SET persona_id = o.persona_id
FROM memsync.orphan_persona o CROSS JOIN jsonb_to_recordset(o.uses)
     AS s(user_id uuid, personality_id uuid)
WHERE o.decision = 'quarantined' AND c.user_id = s.user_id
  AND c.personality_id = s.personality_id AND c.persona_id IS NULL;

-- name: forget_orphans
-- Ends the notes about orphans, once all is as it was.
-- lint: allow NO-WHERE all of them are settled by then
DELETE FROM memsync.orphan_persona;

-- name: conflicting_windows
-- Configs whose personalities have different windows: each other window becomes a fork.
SELECT c.id AS config_id, c.name, array_agg(DISTINCT p.context_window_size) AS windows
FROM llm_configs c JOIN personalities p ON p.llm_config_id = c.id
GROUP BY c.id, c.name HAVING count(DISTINCT p.context_window_size) > 1 ORDER BY c.id;

-- name: windows_taken
-- How many choices of a config take its window from then on, and how many personalities without a
-- config have a window that nothing reads any more.
SELECT (SELECT count(*) FROM ({choices}) c JOIN personalities p ON p.id = c.personality_id
        WHERE c.llm_config_id IS NOT NULL
          AND c.llm_config_id IS DISTINCT FROM p.llm_config_id) AS choices,
       (SELECT count(*) FROM personalities WHERE llm_config_id IS NULL) AS unused;

-- fragment: choices_legacy
-- The choices before the redesign.
SELECT personality_id, llm_config_id FROM user_personality_settings;

-- fragment: choices_redesigned
-- And after it.
SELECT personality_id, llm_config_id FROM user_personality_configs;

-- name: remember_forked
-- Keeps which personalities have a fork.
INSERT INTO memsync.column_archive (piece, id, said)
SELECT 'personalities.llm_config_id', p.id, to_jsonb(f.fork_id)
FROM personalities p JOIN memsync.config_fork f ON f.fork_id = p.llm_config_id
ON CONFLICT (piece, id) DO UPDATE SET said = excluded.said;

-- name: remember_chosen_forks
-- The same of what users chose.
INSERT INTO memsync.column_archive (piece, id, said)
SELECT 'user_personality_configs.llm_config_id', c.id, to_jsonb(f.fork_id)
FROM user_personality_configs c JOIN memsync.config_fork f ON f.fork_id = c.llm_config_id
ON CONFLICT (piece, id) DO UPDATE SET said = excluded.said;

-- name: leave_forks
-- Points personalities at the config that their fork was made from.
UPDATE personalities p SET llm_config_id = o.id
FROM memsync.config_fork f LEFT JOIN llm_configs o ON o.id = f.config_id
WHERE f.fork_id = p.llm_config_id;

-- name: leave_placed_forks
-- The same where the app itself made personality_default_configs, which stays.
UPDATE personality_default_configs d SET llm_config_id = f.config_id
FROM memsync.config_fork f JOIN llm_configs o ON o.id = f.config_id
WHERE f.fork_id = d.llm_config_id;

-- name: leave_chosen_forks
-- The same for what users chose.
UPDATE user_personality_configs c SET llm_config_id = o.id
FROM memsync.config_fork f LEFT JOIN llm_configs o ON o.id = f.config_id
WHERE f.fork_id = c.llm_config_id;

-- name: keep_forks
-- Keeps what the forks say now, so that going forward again makes them as they were.
UPDATE memsync.config_fork f SET said = to_jsonb(c) FROM llm_configs c WHERE c.id = f.fork_id;

-- name: remove_forks
-- Removes the forks; nothing points at them any more.
DELETE FROM llm_configs c USING memsync.config_fork f WHERE f.fork_id = c.id;

-- name: take_forks
-- Gives personalities the forks again that they had, if nothing else was said meanwhile.
UPDATE personalities p SET llm_config_id = f.fork_id
FROM memsync.column_archive a
JOIN memsync.config_fork f ON to_jsonb(f.fork_id) = a.said
JOIN llm_configs c ON c.id = f.fork_id
WHERE a.piece = 'personalities.llm_config_id' AND a.id = p.id AND p.llm_config_id = f.config_id
  AND p.context_window_size = c.context_window_size;

-- name: take_chosen_forks
-- The same for what users chose.
UPDATE user_personality_configs u SET llm_config_id = f.fork_id
FROM memsync.column_archive a
JOIN memsync.config_fork f ON to_jsonb(f.fork_id) = a.said
JOIN llm_configs c ON c.id = f.fork_id
WHERE a.piece = 'user_personality_configs.llm_config_id' AND a.id = u.id
  AND u.llm_config_id = f.config_id;

-- name: forget_forks
-- Ends these notes, now that the forks are there again.
WITH gone AS (DELETE FROM memsync.column_archive
              WHERE piece IN ('personalities.llm_config_id',
                              'user_personality_configs.llm_config_id'))
UPDATE memsync.config_fork SET said = NULL WHERE said IS NOT NULL;

-- name: clear_config_owners
-- Lets go of owners who were deleted before the key stood.
UPDATE llm_configs c SET owner_id = NULL
WHERE owner_id IS NOT NULL AND NOT EXISTS (SELECT FROM users u WHERE u.id = c.owner_id);

-- name: named_after
-- The indexes and constraints of a table whose names begin with its own.
SELECT 'constraint' AS kind, conname::text AS name FROM pg_constraint
WHERE conrelid = to_regclass(%(relation)s) AND starts_with(conname, %(prefix)s)
UNION ALL
SELECT 'index', c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(%(relation)s) AND starts_with(c.relname, %(prefix)s)
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid);

-- name: current_role
-- The role that memsync acts as.
SELECT current_user::text AS name;

-- name: table_rights
-- The owner of a table and who else may do what with it; a grant to everybody has no role. Who may
-- write the one column that a table of its own replaces may do there all that this took.
SELECT pg_get_userbyid(c.relowner) AS owner,
       pg_get_userbyid(nullif(a.grantee, 0)) AS grantee, m.privilege,
       bool_or(a.is_grantable) AS is_grantable
FROM pg_class c
LEFT JOIN pg_attribute k ON k.attrelid = c.oid AND k.attname = %(replaced)s AND k.attnum > 0
LEFT JOIN LATERAL (SELECT * FROM aclexplode(c.relacl) UNION SELECT * FROM aclexplode(k.attacl)) a
       ON a.grantee <> c.relowner
LEFT JOIN LATERAL unnest(CASE WHEN k.attnum IS NOT NULL AND a.privilege_type = 'UPDATE'
                              THEN ARRAY['INSERT', 'UPDATE', 'DELETE']
                              ELSE ARRAY[a.privilege_type] END) AS m(privilege) ON true
WHERE c.oid = to_regclass(%(relation)s)
GROUP BY c.relowner, a.grantee, m.privilege
ORDER BY grantee, privilege;

-- name: column_rights
-- Who may do what with single columns of a table.
SELECT k.attname AS column, pg_get_userbyid(nullif(a.grantee, 0)) AS grantee,
       a.privilege_type AS privilege, a.is_grantable
FROM pg_attribute k CROSS JOIN LATERAL aclexplode(k.attacl) a
WHERE k.attrelid = to_regclass(%(relation)s) AND k.attnum > 0 AND NOT k.attisdropped
ORDER BY k.attnum, grantee, privilege;


-- ------------------------------------------------------------------ migration: fill

-- name: fill_state
-- The checkpoint of a fill; no row before it started.
SELECT next_block, end_block, rows_total, rows_done, extract(epoch FROM busy)::float AS busy_s
FROM memsync.backfill WHERE fill = %(fill)s;

-- name: start_fill
-- Opens the checkpoint of a fill, or opens it again when an earlier fill came to its end.
INSERT INTO memsync.backfill
       (fill, next_block, end_block, rows_total, rows_done, unresolved, busy)
VALUES (%(fill)s, 0, %(end_block)s, %(rows_total)s, 0, %(unresolved)s, interval '0')
ON CONFLICT (fill) DO UPDATE SET
    unresolved = excluded.unresolved,
    next_block = CASE WHEN backfill.next_block < backfill.end_block
                      THEN backfill.next_block ELSE 0 END,
    rows_done = CASE WHEN backfill.next_block < backfill.end_block
                     THEN backfill.rows_done ELSE 0 END,
    busy = CASE WHEN backfill.next_block < backfill.end_block
                THEN backfill.busy ELSE interval '0' END,
    end_block = greatest(backfill.end_block, excluded.end_block),
    rows_total = greatest(backfill.rows_total, excluded.rows_total);

-- name: note_unresolved
-- Notes what this run wants to be done with users without a persona.
UPDATE memsync.backfill SET unresolved = %(unresolved)s WHERE fill = 'personas';

-- name: forget_fill
-- Removes the checkpoint of a fill: its column is new, or about to go.
DELETE FROM memsync.backfill WHERE fill = %(fill)s;

-- name: decided_rows
-- How many messages the map decides, or the archive where the map says nothing.
SELECT (SELECT coalesce(sum(rows_count), 0) FROM memsync.persona_map)::bigint
     + (SELECT count(*) FROM memsync.row_archive a
        JOIN conversation_history h ON h.id = a.history_id
        LEFT JOIN memsync.persona_map m
               ON m.user_id = h.user_id AND m.personality_id = h.personality_id
        WHERE m.user_id IS NULL) AS total;

-- name: restart_fill
-- Sends a fill over the whole table once more, for rows that a first pass could not decide.
UPDATE memsync.backfill SET next_block = 0, end_block = %(end_block)s WHERE fill = %(fill)s;

-- fragment: archived_personas
-- The personas that the archive knows of single rows, as far as they still exist: they count
-- before the map's, in place and in a copy.
SELECT a.history_id, a.persona_id
FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id;

-- name: fill_archived
-- Fills persona_id in one range of blocks where the archive knows the row itself.
UPDATE conversation_history h
SET persona_id = k.persona_id
FROM ({archived_personas}) k
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND h.persona_id IS NULL
  AND k.history_id = h.id;

-- name: fill_personas
-- Fills persona_id of the rest of the range, from the map.
UPDATE conversation_history h
SET persona_id = m.persona_id
FROM memsync.persona_map m
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND h.persona_id IS NULL
  AND m.user_id = h.user_id AND m.personality_id = h.personality_id;

-- name: fill_users
-- Fills user_id in one range of blocks: the owner of the persona, unless the archive knows better.
UPDATE conversation_history h
SET user_id = coalesce((SELECT a.user_id FROM memsync.row_archive a
                        JOIN users u ON u.id = a.user_id WHERE a.history_id = h.id),
                       p.owner_id)
FROM personas p
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND h.user_id IS NULL AND p.id = h.persona_id;

-- name: save_fill
-- Moves the checkpoint; runs in the batch's own transaction.
UPDATE memsync.backfill
SET next_block = %(next_block)s, rows_done = rows_done + %(rows)s,
    busy = busy + make_interval(secs => %(busy_s)s), updated_at = clock_timestamp()
WHERE fill = %(fill)s;

-- name: vacuum_history
-- Frees the space of the rows that the fill replaced, so that the next batches use it again.
-- TRUNCATE would take the strongest lock; SKIP_LOCKED gives way to whoever vacuums already.
VACUUM (TRUNCATE false, SKIP_LOCKED) conversation_history;

-- name: messages_without_user
-- How many messages no user could be found for on the way back, and the first of them.
SELECT count(*) AS total, min(id::text) AS first FROM conversation_history
WHERE user_id IS NULL;

-- name: rows_of_vanished_personas
-- How many messages have a persona that was deleted. Much quicker than the clearing, and mostly 0.
SELECT count(*) AS total FROM conversation_history h
WHERE h.persona_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM personas p WHERE p.id = h.persona_id);

-- name: clear_vanished_personas
-- Empties persona_id where its persona was deleted before the foreign key stood.
UPDATE conversation_history h SET persona_id = NULL
WHERE h.persona_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM personas p WHERE p.id = h.persona_id);

-- name: archive_exceptions
-- Keeps the user of every message whose persona belongs to somebody else; the owner says the rest.
INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason)
SELECT h.id, h.user_id, h.persona_id, 'owner-differs'
FROM conversation_history h JOIN personas p ON p.id = h.persona_id
WHERE h.user_id IS NOT NULL AND p.owner_id IS DISTINCT FROM h.user_id
ON CONFLICT (history_id) DO UPDATE SET user_id = excluded.user_id;

-- name: archive_personas
-- Keeps the persona of every message of which archive and map would say another, before
-- persona_id goes.
INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason)
SELECT h.id, h.user_id, h.persona_id, 'kept'
FROM conversation_history h
LEFT JOIN memsync.persona_map m USING (user_id, personality_id)
LEFT JOIN memsync.row_archive a ON a.history_id = h.id
WHERE h.persona_id IS NOT NULL
  AND h.persona_id IS DISTINCT FROM coalesce(a.persona_id, m.persona_id)
ON CONFLICT (history_id) DO UPDATE
SET persona_id = excluded.persona_id, reason = excluded.reason, source = NULL;

-- name: open_ledger
-- Notes that a phase begins, or is taken back.
INSERT INTO memsync.ledger (verb, phase, memsync_version)
VALUES (%(verb)s, %(phase)s, %(version)s) RETURNING id;

-- name: backfill_stands
-- Whether a backfill came to its end and was not taken back since.
SELECT coalesce((SELECT verb = 'run' FROM memsync.ledger
                 WHERE outcome = 'done' AND phase IN ('backfill', 'expand')
                   AND (verb = 'rollback' OR phase = 'backfill')
                 ORDER BY id DESC LIMIT 1), false) AS found;

-- name: close_ledger
-- Notes how it ended.
UPDATE memsync.ledger
SET ended_at = clock_timestamp(), outcome = %(outcome)s, lock_waits = %(lock_waits)s,
    rows_filled = %(rows_filled)s, waited_s = %(waited_s)s
WHERE id = %(id)s AND outcome IS DISTINCT FROM 'done';

-- name: note_archive_removed
-- Ends the way back, in the transaction that removes the archive.
UPDATE memsync.ledger SET ended_at = clock_timestamp(), outcome = 'done'
WHERE id = (SELECT max(id) FROM memsync.ledger WHERE verb = 'finalize');

-- name: note_user_id_dropped
-- Notes, in the transaction that drops user_id, that it was memsync, which archived it before.
UPDATE memsync.ledger SET user_id_dropped = true
WHERE id = (SELECT max(id) FROM memsync.ledger WHERE verb = 'run' AND phase = 'contract');

-- name: way_back_is_open
-- Whether the last that happened to user_id is that memsync archived and dropped it, not that it
-- came back or that the archive was removed.
SELECT coalesce((SELECT user_id_dropped FROM memsync.ledger
                 WHERE user_id_dropped
                    OR outcome = 'done' AND (verb = 'finalize'
                                             OR verb = 'rollback' AND phase = 'contract')
                 ORDER BY id DESC LIMIT 1), false) AS open;

-- name: remove_archive
-- Ends the way back.
TRUNCATE memsync.persona_map, memsync.row_archive, memsync.created_persona, memsync.backfill,
         memsync.redesign, memsync.column_archive, memsync.config_fork, memsync.orphan_persona;

-- name: remove_merged
-- And the old table of choices, where it was merged into the app's new one.
DROP TABLE IF EXISTS memsync.user_personality_settings;

-- name: archive_size
-- What the archive of the way back holds.
SELECT (SELECT count(*) FROM memsync.persona_map) AS pairs,
       (SELECT count(*) FROM memsync.row_archive) AS rows,
       (SELECT count(*) FROM memsync.orphan_persona WHERE decision = 'quarantined') AS personas,
       (SELECT count(*) FROM memsync.column_archive) AS settings;


-- ------------------------------------------------------------------ migration: what holds it back

-- name: open_control
-- Makes the one row of requests this session's own: what an earlier run was asked for is over.
INSERT INTO memsync.control (pid, wanted) VALUES (pg_backend_pid(), 'run')
ON CONFLICT (one) DO UPDATE
SET pid = excluded.pid, wanted = 'run', who = session_user, asked_at = clock_timestamp(),
    heard_at = NULL;

-- name: wanted
-- What this session's run is asked for, by whom and when.
SELECT wanted, who, to_char(asked_at, 'HH24:MI:SS "UTC"') AS asked_at FROM memsync.control
WHERE pid = pg_backend_pid();

-- name: note_heard
-- Notes that the run does what it is asked for.
UPDATE memsync.control SET heard_at = clock_timestamp()
WHERE pid = pg_backend_pid() AND wanted = %(wanted)s AND heard_at IS NULL;

-- name: ask_run
-- Asks the run that holds the lock for something; no row where none does, or not yet.
UPDATE memsync.control c
SET wanted = %(wanted)s, who = session_user, asked_at = clock_timestamp(), heard_at = NULL
WHERE c.pid = ANY(%(pids)s::int[])
RETURNING c.pid;

-- name: control
-- What the run of one of these sessions is asked for, and whether it does it.
SELECT pid, wanted, who, asked_at, heard_at IS NOT NULL AS heard FROM memsync.control
WHERE pid = ANY(%(pids)s::int[]);

-- name: pressure
-- What a running fill weighs on: bytes of WAL written so far; of the standbys the longest replay
-- lag, and how far the one that is furthest behind has come; and who has waited for a lock on the
-- table for too long.
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS written,
       (SELECT pg_wal_lsn_diff(min(replay_lsn), '0/0')::bigint
        FROM pg_stat_replication) AS replayed,
       (SELECT coalesce(max(extract(epoch FROM replay_lag)) * 1000, 0)::float
        FROM pg_stat_replication) AS lag_ms,
       (SELECT coalesce(array_agg(DISTINCT pid), '{}') FROM pg_locks
        WHERE NOT granted AND pid <> pg_backend_pid() AND relation = to_regclass(%(relation)s)
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND waitstart < clock_timestamp() - make_interval(secs => %(longest_s)s)) AS waiting;

-- name: waiting_for_us
-- Sessions that wait for a lock that this session holds; of many waiting ones some are enough.
SELECT pid FROM (SELECT DISTINCT pid FROM pg_locks WHERE NOT granted LIMIT 20) w
WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid));

-- name: sees_all_sessions
-- Whether this role sees what other roles' sessions and the standbys do.
SELECT pg_has_role('pg_read_all_stats', 'USAGE') AS yes;

-- name: watch_user_style
-- Starts the watch for clients that still write a user_id: nothing is known of the time before.
SELECT setval('memsync.user_style_write_at', floor(extract(epoch FROM clock_timestamp()))::bigint,
              false);

-- name: user_style_write
-- When a client last named user_id in an INSERT (`seen`), else since when this is watched.
SELECT to_char(to_timestamp(last_value), 'YYYY-MM-DD HH24:MI:SS "UTC"') AS moment,
       is_called AS seen,
       extract(epoch FROM clock_timestamp())::float - last_value AS ago_s
FROM memsync.user_style_write_at;

-- name: user_style_sessions
-- Clients whose last statement, within the given time, names conversation_history and user_id.
SELECT pid, application_name, to_char(query_start, 'YYYY-MM-DD HH24:MI:SS "UTC"') AS moment,
       left(regexp_replace(query, '\s+', ' ', 'g'), 120)
       || CASE WHEN length(query) > 120 THEN ' …' ELSE '' END AS query,
       extract(epoch FROM clock_timestamp()
               - CASE WHEN state = 'active' THEN clock_timestamp() ELSE state_change END
       )::float AS ago_s
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
  AND (state IN ('active', 'idle in transaction')
       OR state_change > clock_timestamp() - make_interval(secs => %(within_s)s))
  AND query ~* '\yconversation_history\y' AND query ~* '\yuser_id\y'
  AND NOT starts_with(query, %(own)s)
ORDER BY query_start;

-- name: hidden_sessions
-- How many clients' statements cannot be seen: another role's, or activity is not tracked.
SELECT count(*) AS total FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND usesysid IS NOT NULL
  AND (query = '<insufficient privilege>'
       OR state = 'disabled' AND backend_type = 'client backend');

-- name: backup_for_contract
-- The newest backup that counts: young enough, and not from before contract was last taken back.
SELECT file, taken_at FROM memsync.backup
WHERE taken_at >= clock_timestamp() - make_interval(secs => %(within_s)s)
  AND taken_at > coalesce((SELECT max(coalesce(ended_at, started_at)) FROM memsync.ledger
                           WHERE verb = 'rollback' AND phase = 'contract'), '-infinity')
ORDER BY id DESC LIMIT 1;

-- name: last_backup
-- The newest backup, whether it counts or not.
SELECT file, to_char(taken_at, 'YYYY-MM-DD HH24:MI:SS "UTC"') AS moment
FROM memsync.backup ORDER BY id DESC LIMIT 1;

-- name: contract_was_begun
-- Whether the last that happened to contract is that it passed its gates and began.
SELECT coalesce((SELECT verb = 'run' AND NOT user_id_dropped FROM memsync.ledger
                 WHERE phase = 'contract' AND (gates_passed OR verb = 'rollback')
                 ORDER BY id DESC LIMIT 1), false) AS begun;

-- name: note_gates_passed
-- Notes in the ledger that the gates of this contract are open, and on what grounds.
UPDATE memsync.ledger SET gates_passed = true, note = %(note)s
WHERE id = (SELECT max(id) FROM memsync.ledger WHERE verb = 'run' AND phase = 'contract');

-- name: export_snapshot
-- Lets pg_dump see exactly what this transaction sees.
SELECT pg_export_snapshot() AS id, now() AS taken_at,
       (SELECT count(*) FROM conversation_history) AS history_rows;

-- name: backup_tables
-- Tables by schema: those to back up, with all of memsync's own, and the others beside them.
WITH kept AS (
    SELECT to_regclass(name)::oid AS oid FROM unnest(%(names)s::text[]) AS name)
SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind,
       n.nspname = 'memsync'
       OR coalesce(pg_partition_root(c.oid), c.oid) IN (SELECT oid FROM kept) AS kept
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  AND (n.nspname = 'memsync'
       OR n.oid IN (SELECT relnamespace FROM pg_class WHERE oid IN (SELECT oid FROM kept)))
ORDER BY 1, 2;

-- name: note_backup
-- Records a backup that was written and read back.
INSERT INTO memsync.backup (file, bytes, sha256, tables, history_rows, snapshot, taken_at)
VALUES (%(file)s, %(bytes)s, %(sha256)s, %(tables)s, %(history_rows)s, %(snapshot)s, %(taken_at)s);


-- ------------------------------------------------------------------ migration: copy and swap
-- The copy is memsync_copy.conversation_history; its indexes and constraints bear the history's own
-- names, so that the exchange is a change of schemas. The history retires to memsync_old. What a
-- query named carry_... returns are statements that put onto the copy what hangs on the history:
-- written for the copy, or for the history's name where they run after the exchange.

-- name: copy_state
-- Whether a copy is half done, whether one took the history's place, and whether anything is left.
SELECT coalesce(bool_or(n.nspname = 'memsync_copy' AND c.oid IS NOT NULL), false) AS begun,
       coalesce(bool_or(n.nspname = 'memsync_old' AND c.oid IS NOT NULL), false) AS swapped,
       count(n.oid) > 0 AS found
FROM pg_namespace n
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'conversation_history'
WHERE n.nspname IN ('memsync_copy', 'memsync_old');

-- name: fill_is_half_done
-- Whether an in-place fill was cut short.
SELECT coalesce((SELECT next_block > 0 AND next_block < end_block
                 FROM memsync.backfill WHERE fill = 'personas'), false) AS found;

-- name: room_on_disk
-- Where the server keeps its data, if this role may know and the server is reached on this machine;
-- and the most that its WAL takes by its settings.
SELECT (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS directory,
       inet_server_addr() IS NULL OR inet_server_addr() <<= '127.0.0.0/8'
           OR inet_server_addr() = '::1' AS is_local,
       pg_backend_pid() AS pid,
       pg_size_bytes(current_setting('max_wal_size')) AS wal_bytes;

-- name: note_method
-- Keeps in the ledger how the backfill that has just begun goes about it, and why.
UPDATE memsync.ledger SET note = %(note)s
WHERE id = (SELECT max(id) FROM memsync.ledger WHERE verb = 'run' AND phase = 'backfill');

-- name: copy_definition
-- A digest of what the copy was made from: columns, indexes, constraints, rights, comments.
SELECT md5(concat_ws(E'\n',
    (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
                a.attnotnull, a.attstorage, a.attcompression, a.attcollation, a.attstattarget,
                a.attoptions, a.attacl, pg_get_expr(d.adbin, d.adrelid)), E'\n' ORDER BY a.attnum)
     FROM pg_attribute a
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    (SELECT string_agg(concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid,
                i.indisclustered, i.indisreplident), E'\n' ORDER BY i.indexrelid)
     FROM pg_index i WHERE i.indrelid = c.oid),
    (SELECT string_agg(concat_ws(' ', k.conname, pg_get_constraintdef(k.oid)), E'\n'
                       ORDER BY k.conname)
     FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype <> 't'),
    (SELECT string_agg(concat_ws(' ', e.objoid, e.objsubid, e.description), E'\n'
                       ORDER BY e.objoid, e.objsubid)
     FROM pg_description e
     WHERE e.classoid = 'pg_class'::regclass AND e.objoid = c.oid
        OR e.classoid = 'pg_class'::regclass
           AND e.objoid IN (SELECT indexrelid FROM pg_index WHERE indrelid = c.oid)
        OR e.classoid = 'pg_constraint'::regclass
           AND e.objoid IN (SELECT oid FROM pg_constraint WHERE conrelid = c.oid)),
    c.relowner, c.relacl, c.reloptions, c.relreplident)) AS digest
FROM pg_class c WHERE c.oid = to_regclass('conversation_history');

-- name: copy_columns
-- The columns, in their order.
SELECT attname AS name FROM pg_attribute
WHERE attrelid = to_regclass('conversation_history') AND attnum > 0 AND NOT attisdropped
ORDER BY attnum;

-- name: grant_copy_schemas
-- Lets the history's owner into the schemas of the copy: keys are looked after as the owner.
SELECT format('GRANT USAGE, CREATE ON SCHEMA memsync_copy, memsync_old TO %%I',
              pg_get_userbyid(relowner)) AS statement
FROM pg_class WHERE oid = to_regclass('conversation_history');

-- name: carry_table
-- The copy itself: columns, defaults, checks, storage, options. Autovacuum would hold up the
-- building of indexes.
SELECT format('CREATE TABLE memsync_copy.conversation_history (LIKE %%s INCLUDING DEFAULTS'
              ' INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION INCLUDING COMMENTS)'
              ' WITH (autovacuum_enabled = false%%s)', c.oid::regclass,
              (SELECT string_agg(format(', %%s%%I = %%L', o.prefix, split_part(o.option, '=', 1),
                                        substr(o.option, strpos(o.option, '=') + 1)), '')
               FROM (SELECT '' AS prefix, unnest(c.reloptions) AS option
                     UNION ALL SELECT 'toast.', unnest(t.reloptions)) o
               WHERE o.prefix || o.option NOT LIKE 'autovacuum\_enabled=%%')) AS statement
FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
WHERE c.oid = to_regclass('conversation_history');

-- name: carry_columns
-- Statistics targets and options of columns.
SELECT format('ALTER TABLE memsync_copy.conversation_history ALTER %%I SET STATISTICS %%s',
              attname, attstattarget) AS statement
FROM pg_attribute
WHERE attrelid = to_regclass('conversation_history') AND attnum > 0 AND NOT attisdropped
  AND attstattarget >= 0
UNION ALL
SELECT format('ALTER TABLE memsync_copy.conversation_history ALTER %%I SET (%%s)', attname,
              array_to_string(attoptions, ', '))
FROM pg_attribute
WHERE attrelid = to_regclass('conversation_history') AND attnum > 0 AND NOT attisdropped
  AND attoptions IS NOT NULL;

-- name: carry_owner
-- The owner.
SELECT format('ALTER TABLE memsync_copy.conversation_history OWNER TO %%I',
              pg_get_userbyid(relowner)) AS statement
FROM pg_class WHERE oid = to_regclass('conversation_history');

-- name: clear_default_grants
-- Takes from the copy what ALTER DEFAULT PRIVILEGES gave it.
SELECT statement FROM (
    SELECT 1 AS step, format('REVOKE ALL ON memsync_copy.conversation_history FROM %%s',
                     CASE a.grantee WHEN 0 THEN 'PUBLIC'
                     ELSE quote_ident(pg_get_userbyid(a.grantee)) END) AS statement
    FROM pg_class c, aclexplode(c.relacl) a
    WHERE c.oid = to_regclass('memsync_copy.conversation_history')
    UNION
    SELECT 2, format('GRANT ALL ON memsync_copy.conversation_history TO %%I',
                     pg_get_userbyid(c.relowner))
    FROM pg_class c
    WHERE c.oid = to_regclass('memsync_copy.conversation_history') AND c.relacl IS NOT NULL) found
ORDER BY step;

-- name: carry_grants
-- Grants on the table and on its columns.
SELECT statement FROM (
    SELECT 1 AS step, format('REVOKE ALL ON memsync_copy.conversation_history FROM %%I',
                             pg_get_userbyid(c.relowner)) AS statement
    FROM pg_class c
    WHERE c.oid = to_regclass('conversation_history') AND c.relacl IS NOT NULL
    UNION ALL
    SELECT 2, format('GRANT %%s%%s ON memsync_copy.conversation_history TO %%s%%s',
                     g.privilege_type, ' (' || quote_ident(g.attname) || ')',
                     CASE g.grantee WHEN 0 THEN 'PUBLIC'
                     ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                     CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' END)
    FROM (SELECT NULL::name AS attname, a.* FROM pg_class c, aclexplode(c.relacl) a
          WHERE c.oid = to_regclass('conversation_history')
          UNION ALL
          SELECT t.attname, a.* FROM pg_attribute t, aclexplode(t.attacl) a
          WHERE t.attrelid = to_regclass('conversation_history') AND NOT t.attisdropped) g) found
ORDER BY step;

-- name: carry_indexes
-- The indexes that the copy does not have yet, but those of persona_id.
SELECT i.relname AS name,
       head || ' ON memsync_copy.conversation_history '
       || substr(pg_get_indexdef(i.oid),
                 length(head || format(' ON %%I.%%I ', n.nspname, c.relname)) + 1) AS statement
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace,
LATERAL (SELECT format(CASE WHEN x.indisunique THEN 'CREATE UNIQUE INDEX %%I'
                       ELSE 'CREATE INDEX %%I' END, i.relname) AS head) h
WHERE c.oid = to_regclass('conversation_history') AND i.relname <> ALL(%(but)s)
  AND NOT EXISTS (SELECT FROM pg_class o JOIN pg_namespace s ON s.oid = o.relnamespace
                  WHERE s.nspname = 'memsync_copy' AND o.relname = i.relname)
ORDER BY x.indisunique DESC, i.relname;

-- name: carry_primary_key
-- The primary key, on its index.
SELECT format('ALTER TABLE memsync_copy.conversation_history'
              ' ADD CONSTRAINT %%I PRIMARY KEY USING INDEX %%I', k.conname, i.relname) AS statement
FROM pg_constraint k JOIN pg_class i ON i.oid = k.conindid
WHERE k.conrelid = to_regclass('conversation_history') AND k.contype = 'p'
  AND NOT EXISTS (SELECT FROM pg_constraint o
                  WHERE o.conrelid = to_regclass('memsync_copy.conversation_history')
                    AND o.contype = 'p');

-- name: carry_index_settings
-- Statistics targets of indexed expressions, the index to cluster on, the replica identity.
SELECT format('ALTER INDEX memsync_copy.%%I ALTER %%s SET STATISTICS %%s', i.relname, a.attnum,
              a.attstattarget) AS statement
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_attribute a ON a.attrelid = i.oid
WHERE x.indrelid = to_regclass('conversation_history') AND a.attstattarget >= 0
UNION ALL
SELECT format('ALTER TABLE memsync_copy.conversation_history CLUSTER ON %%I', i.relname)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = to_regclass('conversation_history') AND x.indisclustered
UNION ALL
SELECT 'ALTER TABLE memsync_copy.conversation_history REPLICA IDENTITY '
       || CASE c.relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING'
          ELSE format('USING INDEX %%I', (SELECT i.relname FROM pg_index x
                      JOIN pg_class i ON i.oid = x.indexrelid
                      WHERE x.indrelid = c.oid AND x.indisreplident)) END
FROM pg_class c WHERE c.oid = to_regclass('conversation_history') AND c.relreplident <> 'd';

-- name: carry_keys
-- Foreign keys of the history that the copy does not have yet; one that refers to itself comes
-- with the exchange.
SELECT k.confrelid::regclass::text AS refers_to,
       format('ALTER TABLE memsync_copy.conversation_history ADD CONSTRAINT %%I %%s NOT VALID',
              k.conname, pg_get_constraintdef(k.oid)) AS statement
FROM pg_constraint k
WHERE k.conrelid = to_regclass('conversation_history') AND k.contype = 'f'
  AND k.confrelid <> k.conrelid
  AND NOT EXISTS (SELECT FROM pg_constraint o
                  WHERE o.conrelid = to_regclass('memsync_copy.conversation_history')
                    AND o.conname = k.conname)
ORDER BY k.conname;

-- name: carry_comments
-- Comments on the table, its indexes and its constraints; those on columns come with the table.
SELECT format('COMMENT ON TABLE memsync_copy.conversation_history IS %%L', e.description)
       AS statement
FROM pg_description e
WHERE e.classoid = 'pg_class'::regclass AND e.objoid = to_regclass('conversation_history')
  AND e.objsubid = 0
UNION ALL
SELECT format('COMMENT ON INDEX memsync_copy.%%I IS %%L', i.relname, e.description)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_description e ON e.classoid = 'pg_class'::regclass AND e.objoid = i.oid
WHERE x.indrelid = to_regclass('conversation_history')
  AND EXISTS (SELECT FROM pg_class o JOIN pg_namespace s ON s.oid = o.relnamespace
              WHERE s.nspname = 'memsync_copy' AND o.relname = i.relname)
UNION ALL
SELECT format('COMMENT ON CONSTRAINT %%I ON memsync_copy.conversation_history IS %%L', k.conname,
              e.description)
FROM pg_constraint k
JOIN pg_description e ON e.classoid = 'pg_constraint'::regclass AND e.objoid = k.oid
WHERE k.conrelid = to_regclass('conversation_history') AND k.contype IN ('p', 'f')
  AND k.confrelid <> k.conrelid;

-- name: copy_unvalidated_keys
-- Foreign keys of the copy that are still to be validated.
SELECT format('ALTER TABLE memsync_copy.conversation_history VALIDATE CONSTRAINT %%I', conname)
       AS statement
FROM pg_constraint
WHERE conrelid = to_regclass('memsync_copy.conversation_history') AND NOT convalidated;

-- name: carry_options
-- Whether autovacuum looks after the table.
SELECT coalesce((SELECT format('ALTER TABLE conversation_history SET (autovacuum_enabled = %%L)',
                               split_part(option, '=', 2))
                 FROM unnest(c.reloptions) AS option WHERE option LIKE 'autovacuum\_enabled=%%'),
                'ALTER TABLE conversation_history RESET (autovacuum_enabled)') AS statement
FROM pg_class c WHERE c.oid = to_regclass('conversation_history');

-- name: carry_statistics
-- Extended statistics; they are collected again by the next ANALYZE.
SELECT statement FROM (
    SELECT oid, 1 AS step, format('DROP STATISTICS %%s.%%I', stxnamespace::regnamespace, stxname)
           AS statement
    FROM pg_statistic_ext WHERE stxrelid = to_regclass('conversation_history')
    UNION ALL
    SELECT oid, 2, pg_get_statisticsobjdef(oid)
    FROM pg_statistic_ext WHERE stxrelid = to_regclass('conversation_history')
    UNION ALL
    SELECT oid, 3, format('ALTER STATISTICS %%s.%%I OWNER TO %%I', stxnamespace::regnamespace,
                          stxname, pg_get_userbyid(stxowner))
    FROM pg_statistic_ext WHERE stxrelid = to_regclass('conversation_history')
    UNION ALL
    SELECT oid, 4, format('ALTER STATISTICS %%s.%%I SET STATISTICS %%s',
                          stxnamespace::regnamespace, stxname, stxstattarget)
    FROM pg_statistic_ext
    WHERE stxrelid = to_regclass('conversation_history') AND stxstattarget >= 0) found
ORDER BY oid, step;

-- name: carry_triggers
-- Triggers, each enabled or disabled as it was.
SELECT statement FROM (
    SELECT tgname, 1 AS step, pg_get_triggerdef(oid) AS statement
    FROM pg_trigger
    WHERE tgrelid = to_regclass('conversation_history') AND NOT tgisinternal
      AND tgname <> 'memsync_note_touched'
    UNION ALL
    SELECT tgname, 2, format('ALTER TABLE conversation_history %%s TRIGGER %%I',
                             CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA'
                             ELSE 'ENABLE ALWAYS' END, tgname)
    FROM pg_trigger
    WHERE tgrelid = to_regclass('conversation_history') AND NOT tgisinternal
      AND tgname <> 'memsync_note_touched' AND tgenabled <> 'O') found
ORDER BY tgname, step;

-- name: carry_policies
-- Row security and its policies.
SELECT format('CREATE POLICY %%I ON conversation_history AS %%s FOR %%s TO %%s%%s%%s', p.polname,
              CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
              CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
              WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
              (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC'
                                 ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
               FROM unnest(p.polroles) AS r),
              ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
              ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')') AS statement
FROM pg_policy p WHERE p.polrelid = to_regclass('conversation_history')
UNION ALL
SELECT 'ALTER TABLE conversation_history ENABLE ROW LEVEL SECURITY'
FROM pg_class WHERE oid = to_regclass('conversation_history') AND relrowsecurity
UNION ALL
SELECT 'ALTER TABLE conversation_history FORCE ROW LEVEL SECURITY'
FROM pg_class WHERE oid = to_regclass('conversation_history') AND relforcerowsecurity;

-- name: carry_references
-- Foreign keys that refer to the history, of other tables and its own. Not validated: that reads
-- the other table.
SELECT statement FROM (
    SELECT oid, 1 AS step, format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass,
                                  conname) AS statement
    FROM pg_constraint
    WHERE confrelid = to_regclass('conversation_history') AND contype = 'f'
      AND conrelid <> confrelid
    UNION ALL
    SELECT oid, 2, format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s NOT VALID', conrelid::regclass,
                          conname, pg_get_constraintdef(oid))
    FROM pg_constraint
    WHERE confrelid = to_regclass('conversation_history') AND contype = 'f') found
ORDER BY oid, step;

-- name: carry_publications
-- Publications that name the table, with columns and rows that they choose.
SELECT format('ALTER PUBLICATION %%I ADD TABLE conversation_history%%s%%s', p.pubname,
              (SELECT ' (' || string_agg(quote_ident(a.attname), ', ') || ')'
               FROM unnest(r.prattrs::smallint[]) AS n
               JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = n),
              ' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')') AS statement
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
WHERE r.prrelid = to_regclass('conversation_history');

-- name: carry_late_comments
-- Comments on what comes with the exchange.
SELECT format('COMMENT ON TRIGGER %%I ON conversation_history IS %%L', t.tgname, e.description)
       AS statement
FROM pg_trigger t JOIN pg_description e ON e.classoid = 'pg_trigger'::regclass AND e.objoid = t.oid
WHERE t.tgrelid = to_regclass('conversation_history')
UNION ALL
SELECT format('COMMENT ON POLICY %%I ON conversation_history IS %%L', p.polname, e.description)
FROM pg_policy p JOIN pg_description e ON e.classoid = 'pg_policy'::regclass AND e.objoid = p.oid
WHERE p.polrelid = to_regclass('conversation_history')
UNION ALL
SELECT format('COMMENT ON STATISTICS %%s.%%I IS %%L', s.stxnamespace::regnamespace, s.stxname,
              e.description)
FROM pg_statistic_ext s
JOIN pg_description e ON e.classoid = 'pg_statistic_ext'::regclass AND e.objoid = s.oid
WHERE s.stxrelid = to_regclass('conversation_history')
UNION ALL
SELECT format('COMMENT ON CONSTRAINT %%I ON %%s IS %%L', k.conname, k.conrelid::regclass,
              e.description)
FROM pg_constraint k
JOIN pg_description e ON e.classoid = 'pg_constraint'::regclass AND e.objoid = k.oid
WHERE k.confrelid = to_regclass('conversation_history') AND k.contype = 'f';

-- name: history_schema
-- Where the history is.
SELECT nspname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass('conversation_history');

-- name: halve_lock_timeout
-- Queues for the next lock half as long, in this transaction: waits for several add up.
SELECT set_config('lock_timeout', greatest(setting::int / 2, 1)::text, true)
FROM pg_settings WHERE name = 'lock_timeout';

-- name: has_extended_statistics
-- Whether there are statistics that the exchange left empty.
SELECT EXISTS (SELECT FROM pg_statistic_ext
               WHERE stxrelid = to_regclass('conversation_history')) AS found;

-- name: analyze_swapped
-- Collects them.
ANALYZE conversation_history;

-- name: rewind_fill
-- Sends a fill back to its start: a copy begins, or what it did is cleared away.
UPDATE memsync.backfill SET next_block = 0, rows_done = 0, busy = interval '0'
WHERE fill = %(fill)s;

-- name: referring_tables
-- Other tables whose foreign keys refer to the history, as statements that lock them.
SELECT DISTINCT format('LOCK TABLE %%s IN ACCESS EXCLUSIVE MODE', conrelid::regclass) AS statement
FROM pg_constraint
WHERE confrelid = to_regclass('conversation_history') AND contype = 'f' AND conrelid <> confrelid;

-- name: references_to_validate
-- Foreign keys to the history that the exchange left NOT VALID.
SELECT format('ALTER TABLE %%s VALIDATE CONSTRAINT %%I', conrelid::regclass, conname) AS statement
FROM pg_constraint
WHERE confrelid = to_regclass('conversation_history') AND contype = 'f' AND NOT convalidated;

-- name: keys_of
-- Foreign keys of a copy or of a retired history, as statements that drop them.
SELECT confrelid::regclass::text AS refers_to,
       format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass, conname) AS statement
FROM pg_constraint
WHERE conrelid = to_regclass(%(relation)s) AND contype = 'f' AND conrelid <> confrelid;

-- name: start_copy
-- Opens the checkpoint of a copy, in the transaction that made the trigger: what is written from
-- here on is in the log of touched rows.
INSERT INTO memsync_copy.progress (source, filenode, definition, next_block, end_block)
SELECT c.oid, pg_relation_filenode(c.oid), %(definition)s, 0,
       pg_relation_size(c.oid) / current_setting('block_size')::int + 1
FROM pg_class c WHERE c.oid = to_regclass('conversation_history');

-- name: copy_progress
-- The checkpoint, and whether the history is still the one that the copy began with: not truncated,
-- not rewritten, its trigger in place.
SELECT p.next_block, p.end_block, p.definition,
       p.source = to_regclass('conversation_history')
       AND p.filenode IS NOT DISTINCT FROM pg_relation_filenode(p.source)
       AND EXISTS (SELECT FROM pg_trigger t
                   WHERE t.tgrelid = p.source AND t.tgname = 'memsync_note_touched'
                     AND t.tgenabled = 'A') AS stands
FROM memsync_copy.progress p;

-- name: save_copy
-- Moves the checkpoint; runs in the slice's own transaction.
-- lint: allow NO-WHERE the table has one row
UPDATE memsync_copy.progress SET next_block = %(next_block)s;

-- fragment: copied_rows
-- Where a copied row's persona is decided. Joined, not asked row by row: a third of the time.
FROM conversation_history h
LEFT JOIN memsync.persona_map m ON m.user_id = h.user_id AND m.personality_id = h.personality_id
LEFT JOIN ({archived_personas}) k ON k.history_id = h.id

-- fragment: untouched_slice
-- One range of blocks, without rows that were touched since the copy began: those come by the log,
-- and so no row comes twice.
WHERE h.ctid >= %(start)s::tid AND h.ctid < %(stop)s::tid
  AND NOT EXISTS (SELECT FROM memsync_copy.touched t WHERE t.id = h.id)

-- fragment: touched_rows
-- Rows by their ids.
WHERE h.id = ANY(%(ids)s)

-- name: take_touched
-- Takes the oldest entries from the log of touched rows, and with them all others of the same rows:
-- what a row is now is copied once.
DELETE FROM memsync_copy.touched
WHERE id IN (SELECT id FROM memsync_copy.touched ORDER BY n LIMIT %(limit)s)
RETURNING id;

-- name: touched_left
-- Whether the log of touched rows has entries.
SELECT EXISTS (SELECT FROM memsync_copy.touched) AS found;

-- name: remove_copied
-- Removes rows from the copy.
DELETE FROM memsync_copy.conversation_history WHERE id = ANY(%(ids)s);

-- name: vacuum_copy
-- Marks the copy's pages as visible to all, so that scans of an index alone are possible.
VACUUM (TRUNCATE false) memsync_copy.conversation_history;

-- name: analyze_copy
-- A table without statistics is planned badly.
ANALYZE memsync_copy.conversation_history;

-- name: moment
-- Now, and the number of this transaction: what is committed by then, later snapshots see.
SELECT clock_timestamp() AS at, pg_current_xact_id()::xid::text AS xact;

-- name: older_snapshots
-- Sessions that may still read as of a time before the given moment. To them the copy's rows would
-- not be there. A transaction of READ COMMITTED is none between its statements.
SELECT a.pid, coalesce(a.state, 'of another role') AS state, left(a.query, 200) AS query,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float AS open_s
FROM pg_stat_activity a
WHERE a.pid <> pg_backend_pid() AND a.datname = current_database() AND a.usesysid IS NOT NULL
  AND a.backend_xmin IS NOT NULL
  AND (coalesce(a.xact_start < %(at)s, age(a.backend_xmin) >= age(%(xact)s::xid))
       OR a.state LIKE 'idle in transaction%%')
ORDER BY a.xact_start LIMIT 5;

-- name: more_maintenance_memory
-- Lets indexes be sorted in memory, and by several workers, which need 32 MiB each; for this
-- session, and never less than is set.
SELECT set_config('maintenance_work_mem',
                  greatest(pg_size_bytes(current_setting('maintenance_work_mem')) / 1024,
                           262144)::text || 'kB', false);


-- ------------------------------------------------------------------ migration: what forbids a copy
-- Each returns the reasons for which the history cannot be replaced by a copy; none when it can.

-- name: obstacle_kind
-- A table of another kind than the copy would be.
SELECT reason FROM pg_class c, LATERAL (VALUES
    (c.relkind <> 'r', 'it is no ordinary table'),
    (c.relispartition, 'it is a partition'),
    (c.relpersistence <> 'p', 'it is unlogged or temporary'),
    (c.reloftype <> 0, 'it is a typed table'),
    ((SELECT amname FROM pg_am WHERE oid = c.relam) <> 'heap', 'its access method is not heap'),
    (EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent)),
     'it inherits, or is inherited'),
    (EXISTS (SELECT FROM pg_class t LEFT JOIN pg_index x ON x.indexrelid = t.oid
             WHERE (t.oid = c.oid OR x.indrelid = c.oid) AND t.reltablespace <> 0),
     'it or one of its indexes is in another tablespace'),
    (EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid), 'it has rules')
    ) AS given (holds, reason)
WHERE c.oid = to_regclass('conversation_history') AND holds;

-- name: obstacle_columns
-- Columns whose values the database makes, and an id that the log of touched rows cannot hold.
SELECT format('column %%I is generated or an identity', attname) AS reason FROM pg_attribute
WHERE attrelid = to_regclass('conversation_history') AND attnum > 0 AND NOT attisdropped
  AND (attgenerated <> '' OR attidentity <> '')
UNION ALL
SELECT 'its primary key is not (id uuid)'
WHERE NOT EXISTS (
    SELECT FROM pg_constraint k
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND k.conkey = ARRAY[a.attnum]
    WHERE k.conrelid = to_regclass('conversation_history') AND k.contype = 'p'
      AND NOT k.condeferrable AND a.attname = 'id' AND a.atttypid = 'uuid'::regtype);

-- name: obstacle_constraints
-- Constraints and indexes that a copy would change, or that its correction row by row could break.
SELECT format('constraint %%I of %%s is NOT VALID or not enforced', conname, conrelid::regclass)
       AS reason
FROM pg_constraint
WHERE to_regclass('conversation_history') IN (conrelid, confrelid) AND NOT convalidated
UNION ALL
SELECT format('constraint %%I excludes rows by more than equality', conname)
FROM pg_constraint
WHERE conrelid = to_regclass('conversation_history') AND contype = 'x'
UNION ALL
SELECT format('index %%I is unique besides the primary key', i.relname)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = to_regclass('conversation_history') AND x.indisunique AND NOT x.indisprimary
UNION ALL
SELECT format('index %%I is INVALID', i.relname)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = to_regclass('conversation_history') AND NOT (x.indisvalid AND x.indisready)
  AND i.relname <> ALL(%(but)s)
UNION ALL
SELECT format('foreign key %%I of %%s is that of a partitioned table', conname, conrelid::regclass)
FROM pg_constraint
WHERE confrelid = to_regclass('conversation_history') AND contype = 'f'
  AND (conparentid <> 0 OR (SELECT relkind FROM pg_class WHERE oid = conrelid) <> 'r')
UNION ALL
SELECT format('the triggers of constraint %%I are disabled', k.conname)
FROM pg_constraint k
WHERE to_regclass('conversation_history') IN (k.conrelid, k.confrelid) AND k.contype = 'f'
  AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgconstraint = k.oid AND t.tgenabled <> 'O');

-- name: obstacle_dependents
-- Objects that name the table or its row type and would stay with the old one: views, functions,
-- columns, sequences, policies of other tables.
SELECT DISTINCT 'it is used by ' || pg_describe_object(d.classid, d.objid, 0) AS reason
FROM pg_class c JOIN pg_type r ON r.oid = c.reltype
JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
                 OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (r.oid, r.typarray)
WHERE c.oid = to_regclass('conversation_history')
  AND NOT (d.classid = 'pg_class'::regclass
           AND (SELECT relkind FROM pg_class WHERE oid = d.objid) IN ('i', 't'))
  AND NOT (d.classid = 'pg_type'::regclass AND d.objid IN (r.oid, r.typarray))
  AND NOT EXISTS (
      SELECT FROM pg_attrdef WHERE d.classid = 'pg_attrdef'::regclass AND oid = d.objid
                               AND adrelid = c.oid
      UNION ALL
      SELECT FROM pg_constraint WHERE d.classid = 'pg_constraint'::regclass AND oid = d.objid
                                  AND (conrelid = c.oid OR contype = 'f' AND confrelid = c.oid)
      UNION ALL
      SELECT FROM pg_trigger WHERE d.classid = 'pg_trigger'::regclass AND oid = d.objid
                               AND tgrelid = c.oid
      UNION ALL
      SELECT FROM pg_policy WHERE d.classid = 'pg_policy'::regclass AND oid = d.objid
                              AND polrelid = c.oid
      UNION ALL
      SELECT FROM pg_statistic_ext WHERE d.classid = 'pg_statistic_ext'::regclass
                                     AND oid = d.objid AND stxrelid = c.oid
      UNION ALL
      SELECT FROM pg_publication_rel WHERE d.classid = 'pg_publication_rel'::regclass
                                       AND oid = d.objid AND prrelid = c.oid);

-- name: obstacle_extensions
-- Extensions and labels that hold on to the table or to what hangs on it.
SELECT 'it is bound to ' || pg_describe_object(d.refclassid, d.refobjid, 0) AS reason
FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype IN ('e', 'x')
  AND (d.classid = 'pg_class'::regclass
       AND (d.objid = to_regclass('conversation_history')
            OR d.objid IN (SELECT indexrelid FROM pg_index
                           WHERE indrelid = to_regclass('conversation_history')))
       OR d.classid = 'pg_trigger'::regclass
       AND d.objid IN (SELECT oid FROM pg_trigger
                       WHERE tgrelid = to_regclass('conversation_history')))
UNION ALL
SELECT 'it has security labels'
WHERE EXISTS (SELECT FROM pg_seclabel WHERE classoid = 'pg_class'::regclass
                                        AND objoid = to_regclass('conversation_history'));

-- name: obstacle_replication
-- Readers of the log of changes, which learn of personas only from rows that are updated.
SELECT format('logical replication slot %%I reads this database', slot_name) AS reason
FROM pg_replication_slots WHERE slot_type = 'logical' AND database = current_database()
UNION ALL
SELECT format('publication %%I is of all tables', pubname) FROM pg_publication WHERE puballtables
UNION ALL
SELECT 'a subscription writes it'
WHERE EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = to_regclass('conversation_history'));

-- name: obstacle_event_triggers
-- Event triggers, which may do anything when tables are made and dropped.
SELECT format('event trigger %%I', evtname) AS reason FROM pg_event_trigger
WHERE evtenabled <> 'D' AND evtevent <> 'login';

-- name: obstacle_rights
-- What this role may not do.
SELECT reason FROM pg_class c, LATERAL (VALUES
    (NOT pg_has_role(c.relowner, 'USAGE'), format('this role is not its owner, %%I',
                                                  pg_get_userbyid(c.relowner))),
    (row_security_active(c.oid), 'row security hides rows from this role'),
    (NOT has_schema_privilege(c.relnamespace, 'CREATE'),
     format('this role may not create tables in schema %%s', c.relnamespace::regnamespace)),
    (EXISTS (SELECT FROM aclexplode(c.relacl) WHERE grantor <> c.relowner)
     OR EXISTS (SELECT FROM pg_attribute t, aclexplode(t.attacl) a
                WHERE t.attrelid = c.oid AND a.grantor <> c.relowner),
     'others than its owner granted rights on it')
    ) AS given (holds, reason)
WHERE c.oid = to_regclass('conversation_history') AND holds
UNION ALL
SELECT format('this role does not own %%s, whose foreign key %%I refers to it', k.conrelid::regclass,
              k.conname)
FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid
WHERE k.confrelid = to_regclass('conversation_history') AND k.contype = 'f'
  AND NOT pg_has_role(r.relowner, 'USAGE')
UNION ALL
SELECT format('this role may not refer to %%s, as foreign key %%I does', k.confrelid::regclass,
              k.conname)
FROM pg_constraint k
WHERE k.conrelid = to_regclass('conversation_history') AND k.contype = 'f'
  AND NOT has_table_privilege(k.confrelid, 'REFERENCES')
UNION ALL
SELECT format('this role does not own publication %%I, which names it', p.pubname)
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
WHERE r.prrelid = to_regclass('conversation_history') AND NOT pg_has_role(p.pubowner, 'USAGE');


-- ------------------------------------------------------------------ Prisma's history

-- name: prisma_history
-- Every row of Prisma's history, oldest first.
SELECT migration_name, started_at, finished_at, rolled_back_at FROM _prisma_migrations
ORDER BY started_at, migration_name;

-- name: prisma_try_lock
-- Prisma's own migration lock, until the transaction ends; Prisma itself waits for it.
SELECT pg_try_advisory_xact_lock(72707369) AS taken;

-- name: prisma_roll_back
-- Marks the unfinished rows of a migration as rolled back, as `prisma migrate resolve` does.
UPDATE _prisma_migrations SET rolled_back_at = now()
WHERE migration_name = %(name)s AND finished_at IS NULL AND rolled_back_at IS NULL;

-- name: prisma_apply
-- Records a migration as applied, as `prisma migrate resolve` does: no steps, empty logs.
INSERT INTO _prisma_migrations
       (id, checksum, migration_name, logs, started_at, finished_at, applied_steps_count)
VALUES (%(id)s, %(checksum)s, %(name)s, '', now(), now(), 0);


-- ------------------------------------------------------------------ migration: proof

-- name: verify_counts
-- The counts of the checklist: rows, personas in use, rows without one, rows with one unknown.
SELECT count(*) AS rows_total,
       count(DISTINCT h.persona_id) AS unique_personas,
       count(*) FILTER (WHERE h.persona_id IS NULL) AS null_persona_ids,
       count(*) FILTER (WHERE h.persona_id IS NOT NULL AND p.id IS NULL) AS unknown_persona_ids
FROM conversation_history h LEFT JOIN personas p ON p.id = h.persona_id;

-- name: verify_rows
-- Every row whose persona is not what the settings say, recomputed here without the fill's own
-- decision: the map's answer counts only where the settings were changed after the freeze. Rows
-- with a decision of their own must have it, and evidence must be of the row's user.
WITH settings AS (
    SELECT u.id AS user_id, m.personality_id, m.persona_id AS frozen,
           m.decided_at AT TIME ZONE 'UTC' AS decided_at,
           o.persona_id AS override_now, d.persona_id AS default_now,
           (o.persona_id, d.persona_id) IS NOT DISTINCT FROM
           (m.override_persona_id, m.default_persona_id) AS unchanged
    FROM memsync.persona_map m
    JOIN users u ON u.id = m.user_id
    LEFT JOIN memsync.persona_override o
           ON o.user_id = m.user_id AND o.personality_id = m.personality_id
    LEFT JOIN memsync.persona_default d ON d.user_id = m.user_id
)
SELECT h.id, h.user_id, h.personality_id, h.persona_id,
       CASE WHEN a.reason <> 'evidence' THEN 'the settings say'
            WHEN h.persona_id <> a.persona_id THEN 'its evidence says'
            WHEN a.reason = 'evidence' THEN 'which is not its user''s; the settings say'
            ELSE 'the settings say' END AS by_whom,
       CASE WHEN a.user_id = h.user_id AND (a.reason <> 'evidence' OR h.persona_id <> a.persona_id)
                 THEN a.persona_id
            WHEN s.unchanged THEN coalesce(s.override_now, s.default_now)
            ELSE s.frozen END AS expected,
       count(*) OVER () AS wrong_total
FROM conversation_history h
LEFT JOIN settings s ON s.user_id = h.user_id AND s.personality_id = h.personality_id
LEFT JOIN memsync.row_archive a ON a.history_id = h.id
LEFT JOIN personas p ON p.id = h.persona_id
WHERE h.persona_id IS NOT NULL
  AND CASE
      -- Evidence speaks for a user's own personas only.
      WHEN a.reason = 'evidence'
           THEN h.persona_id <> a.persona_id OR p.owner_id IS DISTINCT FROM h.user_id
      WHEN a.history_id IS NOT NULL
           THEN h.persona_id <> a.persona_id OR h.user_id <> a.user_id
      -- Not of the map, or of after it: what the trigger decided is in the archive, so an app that
      -- knows both ids wrote this. Its persona must be one of the user's.
      WHEN s.user_id IS NULL OR h.created_at >= s.decided_at
           THEN p.owner_id IS DISTINCT FROM h.user_id
      WHEN s.unchanged THEN h.persona_id IS DISTINCT FROM coalesce(s.override_now, s.default_now)
      ELSE h.persona_id <> s.frozen END
ORDER BY h.id
LIMIT %(limit)s;

-- name: verify_drift
-- How many decisions of the map today's settings would take differently (no fault: they moved on).
SELECT count(*) AS pairs
FROM memsync.persona_map m
LEFT JOIN memsync.persona_override o
       ON o.user_id = m.user_id AND o.personality_id = m.personality_id
LEFT JOIN memsync.persona_default d ON d.user_id = m.user_id
WHERE coalesce(o.persona_id, d.persona_id) IS DISTINCT FROM m.persona_id;

-- name: verify_owners
-- Messages whose persona is not one of their user's, and that neither the map nor the archive
-- explains: their user_id was changed after the fill, or their persona is wrong.
SELECT h.id, h.user_id, h.persona_id, p.owner_id, count(*) OVER () AS total
FROM conversation_history h
JOIN personas p ON p.id = h.persona_id
LEFT JOIN memsync.persona_map m USING (user_id, personality_id)
LEFT JOIN memsync.row_archive a ON a.history_id = h.id AND a.user_id = h.user_id
WHERE p.owner_id IS DISTINCT FROM h.user_id
  AND m.persona_id IS DISTINCT FROM h.persona_id
  AND a.persona_id IS DISTINCT FROM h.persona_id
ORDER BY h.id LIMIT %(limit)s;

-- fragment: speaker_column
-- Whose each message is, by its user_id.
SELECT user_id, personality_id, created_at FROM conversation_history;

-- fragment: speaker_owner
-- The same without user_id: the owner of its persona, unless the archive knows better.
SELECT coalesce(a.user_id, p.owner_id) AS user_id, h.personality_id, h.created_at
FROM conversation_history h
JOIN personas p ON p.id = h.persona_id
LEFT JOIN memsync.row_archive a ON a.history_id = h.id;

-- name: verify_user_counts
-- Messages per (user, personality) at the freeze and now. Those of before it can only have become
-- fewer; `more` leaves out the hour before it, for clocks that differ and transactions that were
-- open. The caller names the fragment for {speaker}.
WITH now AS (
    SELECT m.user_id, m.personality_id,
           count(*) FILTER (WHERE s.created_at < m.decided_at AT TIME ZONE 'UTC') AS rows_before,
           count(*) FILTER (WHERE s.created_at < m.decided_at AT TIME ZONE 'UTC'
                                                 - interval '1 hour') AS rows_sure
    FROM memsync.persona_map m JOIN ({speaker}) s USING (user_id, personality_id)
    GROUP BY m.user_id, m.personality_id
)
SELECT count(DISTINCT user_id) AS users, count(*) AS pairs,
       coalesce(sum(rows_count), 0)::bigint AS rows_then,
       coalesce(sum(rows_before), 0)::bigint AS rows_now,
       count(DISTINCT user_id) FILTER (WHERE coalesce(rows_before, 0) < rows_count) AS users_fewer,
       count(*) FILTER (WHERE now.rows_before IS NULL) AS pairs_silent,
       coalesce((array_agg(format('%%s with personality %%s: %%s then, %%s now', user_id,
                                  personality_id, rows_count, rows_sure) ORDER BY user_id)
                 FILTER (WHERE rows_sure > rows_count))[:20], ARRAY[]::text[]) AS more
FROM memsync.persona_map LEFT JOIN now USING (user_id, personality_id);

-- name: verify_wanted
-- Whether the last that was done about a phase is that it was run, not that it was taken back.
SELECT coalesce((SELECT verb = 'run' FROM memsync.ledger WHERE phase = %(phase)s
                 AND outcome = 'done' ORDER BY id DESC LIMIT 1), false) AS wanted;

-- name: verify_keys
-- The foreign keys from persona_id to the personas.
SELECT k.conname AS name, k.convalidated AS valid, pg_get_constraintdef(k.oid) AS says
FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attname = 'persona_id'
WHERE k.contype = 'f' AND k.conrelid = to_regclass('conversation_history')
  AND k.confrelid = to_regclass('personas') AND k.conkey = ARRAY[a.attnum];

-- name: verify_trigger
-- Whether our trigger stands on the history, and fires for clients.
SELECT tgenabled IN ('O', 'A') AS fires FROM pg_trigger
WHERE tgrelid = to_regclass('conversation_history') AND tgname = 'memsync_keep_identity';


-- ------------------------------------------------------------------ migration: preflight

-- name: preflight_server
-- What the server is, and the settings of it that matter.
SELECT current_setting('server_version') AS version,
       pg_is_in_recovery() AS standby,
       current_setting('default_transaction_read_only')::bool AS read_only,
       current_setting('autovacuum')::bool AND current_setting('track_counts')::bool AS autovacuum;

-- name: preflight_backend
-- The pid of the server process behind this session; a pooler tells its clients another.
SELECT pg_backend_pid() AS pid;

-- name: preflight_owners
-- Whose the named tables are, and what this role may do with them and with their schema.
SELECT name, pg_get_userbyid(c.relowner) AS owner,
       pg_has_role(c.relowner, 'USAGE') AS owned,
       has_table_privilege(c.oid, 'REFERENCES') AS may_refer,
       n.nspname AS schema, has_schema_privilege(n.oid, 'CREATE') AS may_create
FROM unnest(%(names)s::text[]) AS name
JOIN pg_class c ON c.oid = to_regclass(name)
JOIN pg_namespace n ON n.oid = c.relnamespace;

-- name: preflight_rights
-- Whether this role may make the schema memsync, or write in the one that stands, and whether it
-- sees what other sessions do.
SELECT current_user AS role, current_database() AS database,
       to_regnamespace('memsync') IS NOT NULL AS there,
       CASE WHEN to_regnamespace('memsync') IS NULL
            THEN has_database_privilege(current_database(), 'CREATE')
            ELSE has_schema_privilege('memsync', 'USAGE')
                 AND has_schema_privilege('memsync', 'CREATE') END AS schema_ours,
       pg_has_role('pg_read_all_stats', 'USAGE') AS sees_others;

-- name: preflight_disk
-- What the history takes on disk, and where that is: `folder` is NULL for a role that may not know,
-- `here` is whether the server runs on the client's machine.
SELECT pg_table_size(c.oid) AS table_bytes, pg_indexes_size(c.oid) AS index_bytes,
       pg_size_bytes(current_setting('max_wal_size')) AS wal_bytes,
       inet_server_addr() IS NULL OR inet_server_addr() = inet_client_addr() AS here,
       coalesce(nullif(pg_tablespace_location(
                    coalesce(nullif(c.reltablespace, 0), d.dattablespace)), ''),
                (SELECT setting FROM pg_settings WHERE name = 'data_directory')) AS folder
FROM pg_class c, pg_database d
WHERE c.oid = to_regclass('conversation_history') AND d.datname = current_database();

-- name: preflight_transactions
-- Transactions of this database that have been open for long, oldest first: an index build waits
-- for each.
SELECT pid, coalesce(state, 'of another role') AS state, left(query, 200) AS query,
       extract(epoch FROM clock_timestamp() - xact_start)::float AS open_s
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND backend_type <> 'autovacuum worker'
  AND xact_start <= clock_timestamp() - make_interval(secs => %(older_s)s)
ORDER BY xact_start LIMIT 20;

-- name: preflight_prepared
-- Prepared transactions: nobody's session, they hold their locks until somebody ends them. `locked`
-- names the given tables that each holds.
SELECT p.gid, p.owner, extract(epoch FROM clock_timestamp() - p.prepared)::float AS open_s,
       ARRAY(SELECT DISTINCT t.name FROM unnest(%(names)s::text[]) AS t(name)
             JOIN pg_locks l ON l.relation = to_regclass(t.name)
             JOIN pg_locks own USING (virtualtransaction)
             WHERE l.pid IS NULL AND own.pid IS NULL AND own.transactionid = p.transaction
             ORDER BY 1) AS locked
FROM pg_prepared_xacts p WHERE p.database = current_database() ORDER BY p.prepared;

-- name: preflight_replicas
-- How many standbys there are, and how far the last of them is behind.
SELECT count(*) AS replicas,
       coalesce(extract(epoch FROM max(replay_lag)), 0)::float AS lag_s
FROM pg_stat_replication;

-- name: preflight_slots
-- Logical replication slots of this database: an idle one keeps all that the run writes.
SELECT slot_name AS name, active FROM pg_replication_slots
WHERE slot_type = 'logical' AND database = current_database() ORDER BY 1;

-- name: preflight_publications
-- The publications that carry the history, and whether they carry its updates.
SELECT p.pubname AS name, p.pubupdate AS updates
FROM pg_publication_tables t JOIN pg_publication p USING (pubname)
JOIN pg_class c ON c.relname = t.tablename AND c.oid = to_regclass('conversation_history')
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schemaname
ORDER BY 1;

-- name: preflight_subscriptions
-- The subscriptions that write the history: their rows pass our trigger by.
SELECT s.subname AS name FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
WHERE r.srrelid = to_regclass('conversation_history') ORDER BY 1;

-- name: preflight_shape
-- What kind of table the history is, whether rows of it are hidden from this role, and how near it
-- is to a vacuum that does not give way.
SELECT c.relkind::text AS kind, c.relpersistence::text AS persistence,
       EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid) AS child,
       EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid) AS parent,
       row_security_active(c.oid) AS hides_rows,
       c.relreplident::text AS identity,
       EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid
               WHERE i.indrelid = c.oid AND i.indisreplident AND a.attname = 'user_id'
                 AND a.attnum = ANY (i.indkey)) AS identity_by_user,
       age(c.relfrozenxid)::bigint AS xid_age,
       coalesce((SELECT least(option_value::bigint,
                              current_setting('autovacuum_freeze_max_age')::bigint)
                 FROM pg_options_to_table(c.reloptions)
                 WHERE option_name = 'autovacuum_freeze_max_age'),
                current_setting('autovacuum_freeze_max_age')::bigint) AS xid_age_max
FROM pg_class c WHERE c.oid = to_regclass('conversation_history');

-- name: preflight_dependents
-- What hangs on one column: what `blocks` refuses DROP COLUMN, the rest goes with the column.
SELECT DISTINCT d.deptype = 'n' AS blocks,
       coalesce(i.relname, k.conname, t.tgname) AS name,
       CASE v.relkind WHEN 'v' THEN 'view ' || v.oid::regclass
                      WHEN 'm' THEN 'materialized view ' || v.oid::regclass
                      ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END AS what
FROM pg_depend d
JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
LEFT JOIN pg_class i ON d.classid = 'pg_class'::regclass AND i.oid = d.objid
LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
LEFT JOIN pg_class v ON v.oid = r.ev_class
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(%(relation)s)
  AND a.attname = %(column)s
ORDER BY 3;

-- name: preflight_triggers
-- Triggers of the history that are not ours, and whether their functions read user_id of the row.
SELECT t.tgname AS name, t.tgfoid::regproc::text AS function,
       p.prosrc ~* '\m(new|old)\s*\.\s*"?user_id\M' AS reads_user, (t.tgtype & 16) <> 0 AS on_update
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
WHERE t.tgrelid = to_regclass('conversation_history') AND NOT t.tgisinternal
  AND t.tgenabled <> 'D' AND NOT starts_with(t.tgname, 'memsync_')
ORDER BY 1;

-- name: preflight_functions
-- Functions whose text speaks of the history and of user_id; the text may also be a comment.
SELECT p.oid::regprocedure::text AS name
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'memsync')
  AND p.prosrc ~ '\mconversation_history\M' AND p.prosrc ~ '\muser_id\M'
ORDER BY 1;

-- name: preflight_rules
-- Rewrite rules on the history; those on UPDATE change what the fill does.
SELECT rulename AS name, ev_type = '2' AS on_update FROM pg_rewrite
WHERE ev_class = to_regclass('conversation_history') ORDER BY 1;

-- name: preflight_column_grants
-- Rights on user_id alone, which persona_id does not have yet.
SELECT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END AS role,
       string_agg(DISTINCT g.privilege_type, ', ' ORDER BY g.privilege_type) AS rights,
       string_agg(DISTINCT g.privilege_type || ' (persona_id)', ', '
                  ORDER BY g.privilege_type || ' (persona_id)') AS wanted
FROM pg_attribute a CROSS JOIN LATERAL aclexplode(a.attacl) g
WHERE a.attrelid = to_regclass('conversation_history') AND a.attname = 'user_id'
  AND NOT EXISTS (SELECT FROM pg_attribute b CROSS JOIN LATERAL aclexplode(b.attacl) s
                  WHERE b.attrelid = a.attrelid AND b.attname = 'persona_id'
                    AND s.grantee = g.grantee AND s.privilege_type = g.privilege_type)
GROUP BY 1 ORDER BY 1;

-- name: preflight_referrers
-- Foreign keys of other tables that point at the history.
SELECT conrelid::regclass::text AS relation, conname AS name FROM pg_constraint
WHERE contype = 'f' AND confrelid = to_regclass('conversation_history') ORDER BY 1, 2;

-- name: preflight_event_triggers
-- Event triggers: each may look at our DDL, and refuse it.
SELECT evtname AS name FROM pg_event_trigger WHERE evtenabled <> 'D' ORDER BY 1;

-- name: preflight_vacuum
-- A vacuum of the history that is running. One of a person, or against wraparound, gives way to no
-- lock.
SELECT a.pid, a.backend_type = 'autovacuum worker' AND a.query !~ 'to prevent wraparound'
       AS gives_way
FROM pg_stat_progress_vacuum v JOIN pg_stat_activity a USING (pid)
WHERE v.relid = to_regclass('conversation_history');

-- name: preflight_limits
-- What is set for roles or this database and matters to the migration. `ours`: it holds for us.
SELECT split_part(entry, '=', 1) AS name, split_part(entry, '=', 2) AS value,
       CASE WHEN s.setrole <> 0 THEN 'ROLE ' || s.setrole::regrole::text ELSE '' END
       || CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0 THEN ' IN ' ELSE '' END
       || CASE WHEN s.setdatabase <> 0 THEN 'DATABASE ' || quote_ident(current_database())
               ELSE '' END AS whose,
       s.setrole = 0 OR s.setrole::regrole::text = quote_ident(current_user) AS ours
FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS entry
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND split_part(entry, '=', 1) = ANY(%(names)s)
ORDER BY 3, 1;

-- name: preflight_ownerless
-- Personas without an owner, and how many there are.
SELECT id, name, count(*) OVER () AS total FROM personas
WHERE owner_id IS NULL ORDER BY id LIMIT %(limit)s;

-- name: preflight_unknown
-- Messages whose persona does not exist, and how many there are.
SELECT h.id, h.persona_id, count(*) OVER () AS total
FROM conversation_history h LEFT JOIN personas p ON p.id = h.persona_id
WHERE h.persona_id IS NOT NULL AND p.id IS NULL ORDER BY h.id LIMIT %(limit)s;

-- name: prisma_relatives
-- What looks like the history of a Prisma that memsync does not know: its tables by name, or what
-- is in a schema of its own.
SELECT c.oid::regclass::text AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p')
  AND (n.nspname IN ('prisma', '_prisma')
       OR starts_with(c.relname, '_prisma') AND c.relname <> '_prisma_migrations'
          AND n.nspname = ANY (current_schemas(false)))
ORDER BY 1;


-- ------------------------------------------------------------------ history and exchanges

-- name: recent_history
-- The newest messages of one thread, newest first.
SELECT id, role, content, created_at
FROM conversation_history
WHERE channel_id = %(channel_id)s AND personality_id = %(personality_id)s
  AND persona_id = %(persona_id)s
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s;

-- name: recent_history_of_user
-- The same by user, before contract.
SELECT id, role, content, created_at
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
-- Serialises writers of one thread until the transaction ends, so that each sees its neighbours.
SELECT pg_advisory_xact_lock(hashtextextended(%(thread)s, 0));

-- name: thread_clock
-- The moment to give a thread's next message: now, but after the newest message it has.
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
-- model.records.exchanges says the same in Python; one test holds the two together.
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
-- The next exchanges in the order of their anchors' ids: one page of an audit.
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
-- both ends included): for points that no exchange of their own persona explains.
SELECT DISTINCT e.* FROM ({exchange}) e
JOIN unnest(%(personality_ids)s::uuid[], %(from_ms)s::bigint[], %(to_ms)s::bigint[])
     AS w(personality_id, from_ms, to_ms)
  ON e.personality_id = w.personality_id AND e.created_at
     BETWEEN timestamp '1970-01-01' + w.from_ms * interval '1 millisecond'
         AND timestamp '1970-01-01' + w.to_ms * interval '1 millisecond'
ORDER BY e.anchor_id;

-- name: messages_without_persona
-- The first messages that have no persona, and how many there are.
SELECT id, count(*) OVER () AS total FROM conversation_history
WHERE persona_id IS NULL ORDER BY id LIMIT %(limit)s;

-- name: known_personas
-- Which of the given personas exist.
SELECT id FROM personas WHERE id = ANY(%(ids)s);

-- name: horizon_ms
-- When the oldest message that is still kept was written.
SELECT (extract(epoch FROM min(created_at)) * 1000)::bigint AS ms FROM conversation_history;

-- name: now_ms
-- The database's clock: the one that settle windows are measured by.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms;


-- ------------------------------------------------------------------ outbox

-- name: enqueue
-- Records that the memories of these anchors must be made anew; in the caller's transaction.
INSERT INTO memsync.outbox (point_id) SELECT unnest(%(ids)s::uuid[]);

-- name: claim
-- The oldest entries that are due, for the one relay that holds the relay's lock.
SELECT id, point_id, attempts FROM memsync.outbox
WHERE NOT dead AND next_attempt_at <= clock_timestamp()
ORDER BY id LIMIT %(limit)s;

-- name: settle_entries
-- Removes entries whose work is done.
DELETE FROM memsync.outbox WHERE id = ANY(%(ids)s);

-- name: defer_entries
-- Puts entries back after a failure, later each time; after the last attempt they are dead.
UPDATE memsync.outbox
SET attempts = attempts + 1, last_error = %(error)s,
    dead = attempts + 1 >= %(attempts_max)s,
    next_attempt_at = clock_timestamp()
        + make_interval(secs => least(300, power(2, attempts)) * (0.5 + random() / 2))
WHERE id = ANY(%(ids)s);

-- name: revive_entries
-- Makes dead entries due again.
UPDATE memsync.outbox SET dead = false, attempts = 0, next_attempt_at = clock_timestamp()
WHERE dead;

-- name: outbox_status
-- How many entries wait, how many are dead, and the age of the oldest that waits, in seconds.
SELECT count(*) FILTER (WHERE NOT dead) AS pending, count(*) FILTER (WHERE dead) AS dead,
       coalesce(extract(epoch FROM clock_timestamp()
                - min(enqueued_at) FILTER (WHERE NOT dead)), 0)::float AS oldest_s
FROM memsync.outbox;

-- name: outbox_late
-- The first entries that are dead or older than the alarm age, and how many there are.
SELECT id, point_id, dead, attempts, last_error, count(*) OVER () AS total,
       extract(epoch FROM clock_timestamp() - enqueued_at)::float AS age_s
FROM memsync.outbox
WHERE dead OR enqueued_at < clock_timestamp() - make_interval(secs => %(alarm_s)s)
ORDER BY id LIMIT %(limit)s;

-- name: outbox_pending_of
-- Which of the given memories have an intent that is still to be carried out.
SELECT DISTINCT point_id FROM memsync.outbox WHERE point_id = ANY(%(ids)s) AND NOT dead;


-- ------------------------------------------------------------------ quarantine

-- name: quarantine_point
-- Keeps a point whole before it is removed or overwritten. Repeating it keeps one copy.
INSERT INTO memsync.quarantine (plan_id, collection, point_id, state, payload, vector, reason)
VALUES (%(plan_id)s, %(collection)s, %(point_id)s, %(state)s, %(payload)s, %(vector)s, %(reason)s)
ON CONFLICT (plan_id, collection, point_id, state) DO NOTHING;

