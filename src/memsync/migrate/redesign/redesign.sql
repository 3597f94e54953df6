-- The settings in their old places and in their new ones: copied, compared, taken back.

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
             ON a.column_name = 'llm_configs.context_window_size' AND a.row_id = p.config_id
      WHERE p.config_id IS NOT NULL
      GROUP BY p.config_id, p.window_size, a.value
      ORDER BY p.config_id, a.value = to_jsonb(p.window_size) DESC NULLS LAST, count(*) DESC,
               p.window_size) m
WHERE c.id = m.config_id AND c.context_window_size <> m.window_size;

-- name: note_sized
-- Notes that it was done: what was placed since must keep its window.
INSERT INTO memsync.redesign_change (object, change) VALUES ('sized', 'made') ON CONFLICT DO NOTHING;

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
-- Lets this transaction's writes pass the mirror by. Each batch is planned for where it begins: a
-- plan for any would walk the index from its start, since "the first batch" is one of its cases.
SELECT set_config('memsync.copying_settings', 'on', true) AS copying,
       set_config('plan_cache_mode', 'force_custom_plan', true) AS planned;

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
UPDATE personalities p SET context_window_size = a.value::int FROM memsync.column_archive a
WHERE a.column_name = 'personalities.context_window_size' AND a.row_id = p.id
  AND p.llm_config_id IS NULL AND p.context_window_size <> a.value::int;

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
INSERT INTO memsync.orphan_persona (persona_id, decision, owner_id, persona_row, used_by)
SELECT p.id, %(decision)s, %(owner_id)s, to_jsonb(p), '[]' FROM personas p JOIN given USING (id)
ON CONFLICT (persona_id) DO UPDATE SET decision = excluded.decision, owner_id = excluded.owner_id;

-- name: quarantine_persona
-- Keeps a persona that nobody or several people own, with who used it.
INSERT INTO memsync.orphan_persona (persona_id, decision, persona_row, used_by)
SELECT p.id, 'quarantined', to_jsonb(p), coalesce((
    SELECT jsonb_agg(jsonb_build_object('user_id', s.user_id, 'personality_id', s.personality_id))
    FROM (SELECT user_id, personality_id, persona_id FROM ({override}) o
          UNION ALL SELECT user_id, NULL, persona_id FROM ({default}) d) s
    WHERE s.persona_id = p.id), '[]')
FROM personas p WHERE p.id = %(persona_id)s
ON CONFLICT (persona_id) DO UPDATE SET decision = 'quarantined', persona_row = excluded.persona_row,
                                       used_by = excluded.used_by;

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
SELECT persona_row AS kept FROM memsync.orphan_persona WHERE decision = 'quarantined';

-- name: kept_forks
-- What the forks said that the way back removed; an owner who is gone is none.
SELECT f.config_row || jsonb_build_object('owner_id', (
           SELECT u.id FROM users u WHERE u.id::text = f.config_row ->> 'owner_id')) AS kept
FROM memsync.config_fork f JOIN llm_configs c ON c.id = f.config_id
WHERE f.config_row IS NOT NULL;

-- name: restore_defaults
-- Gives them back to the users whose default they were and who have none now.
UPDATE users u SET global_persona_id = o.persona_id
FROM memsync.orphan_persona o CROSS JOIN jsonb_to_recordset(o.used_by)
     AS s(user_id uuid, personality_id uuid)
WHERE o.decision = 'quarantined' AND s.personality_id IS NULL AND u.id = s.user_id
  AND u.global_persona_id IS NULL;

-- name: restore_new_defaults
-- The same where the app itself made user_default_personas, which stays.
INSERT INTO user_default_personas (user_id, persona_id, updated_at)
SELECT u.id, o.persona_id, timezone('UTC', clock_timestamp())
FROM memsync.orphan_persona o CROSS JOIN jsonb_to_recordset(o.used_by)
     AS s(user_id uuid, personality_id uuid) JOIN users u ON u.id = s.user_id
WHERE o.decision = 'quarantined' AND s.personality_id IS NULL
ON CONFLICT (user_id) DO NOTHING;

-- name: restore_new_choices
-- The same for what users chose for one personality, where the app itself renamed that table.
UPDATE user_personality_configs c SET persona_id = o.persona_id
FROM memsync.orphan_persona o CROSS JOIN jsonb_to_recordset(o.used_by)
     AS s(user_id uuid, personality_id uuid)
WHERE o.decision = 'quarantined' AND c.user_id = s.user_id
  AND c.personality_id = s.personality_id AND c.persona_id IS NULL;

-- name: restore_choices
-- The same for what users chose for one personality.
UPDATE user_personality_settings c SET persona_id = o.persona_id
FROM memsync.orphan_persona o CROSS JOIN jsonb_to_recordset(o.used_by)
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
INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'personalities.llm_config_id', p.id, to_jsonb(f.fork_id)
FROM personalities p JOIN memsync.config_fork f ON f.fork_id = p.llm_config_id
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value;

-- name: remember_chosen_forks
-- The same of what users chose.
INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'user_personality_configs.llm_config_id', c.id, to_jsonb(f.fork_id)
FROM user_personality_configs c JOIN memsync.config_fork f ON f.fork_id = c.llm_config_id
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value;

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
UPDATE memsync.config_fork f SET config_row = to_jsonb(c) FROM llm_configs c WHERE c.id = f.fork_id;

-- name: remove_forks
-- Removes the forks; nothing points at them any more.
DELETE FROM llm_configs c USING memsync.config_fork f WHERE f.fork_id = c.id;

-- name: take_forks
-- Gives personalities the forks again that they had, if nothing else was said meanwhile.
UPDATE personalities p SET llm_config_id = f.fork_id
FROM memsync.column_archive a
JOIN memsync.config_fork f ON to_jsonb(f.fork_id) = a.value
JOIN llm_configs c ON c.id = f.fork_id
WHERE a.column_name = 'personalities.llm_config_id' AND a.row_id = p.id AND p.llm_config_id = f.config_id
  AND p.context_window_size = c.context_window_size;

-- name: take_chosen_forks
-- The same for what users chose.
UPDATE user_personality_configs u SET llm_config_id = f.fork_id
FROM memsync.column_archive a
JOIN memsync.config_fork f ON to_jsonb(f.fork_id) = a.value
JOIN llm_configs c ON c.id = f.fork_id
WHERE a.column_name = 'user_personality_configs.llm_config_id' AND a.row_id = u.id
  AND u.llm_config_id = f.config_id;

-- name: forget_forks
-- Ends these notes, now that the forks are there again.
WITH gone AS (DELETE FROM memsync.column_archive
              WHERE column_name IN ('personalities.llm_config_id',
                              'user_personality_configs.llm_config_id'))
UPDATE memsync.config_fork SET config_row = NULL WHERE config_row IS NOT NULL;

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

-- name: table_grants
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

-- name: column_grants
-- Who may do what with single columns of a table.
SELECT k.attname AS column, pg_get_userbyid(nullif(a.grantee, 0)) AS grantee,
       a.privilege_type AS privilege, a.is_grantable
FROM pg_attribute k CROSS JOIN LATERAL aclexplode(k.attacl) a
WHERE k.attrelid = to_regclass(%(relation)s) AND k.attnum > 0 AND NOT k.attisdropped
ORDER BY k.attnum, grantee, privilege;
