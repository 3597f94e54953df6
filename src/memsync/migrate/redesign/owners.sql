-- Personas without an owner: who uses each, what is decided, and how that is undone.

-- name: user_exists
-- Whether this user exists.
SELECT EXISTS (SELECT FROM users WHERE id = %(user_id)s) AS found;

-- name: orphan_personas
-- Personas without an owner, and the users of each: by default, or by a choice for a personality.
SELECT p.id, p.name,
       coalesce(array_agg(DISTINCT s.user_id) FILTER (WHERE s.user_id IS NOT NULL), '{}') AS users
FROM personas p
LEFT JOIN ({persona_uses}) s ON s.persona_id = p.id
WHERE p.owner_id IS NULL
GROUP BY p.id, p.name ORDER BY p.id;

-- name: give_owner
-- Gives a persona the owner that was decided, and archives its row as it was.
WITH given AS (
    UPDATE personas SET owner_id = %(owner_id)s WHERE id = %(persona_id)s AND owner_id IS NULL
    RETURNING id)
INSERT INTO memsync.orphan_persona (persona_id, decision, owner_id, persona_row, used_by)
SELECT p.id, %(decision)s, %(owner_id)s, to_jsonb(p), '[]' FROM personas p JOIN given USING (id)
ON CONFLICT (persona_id) DO UPDATE SET decision = excluded.decision, owner_id = excluded.owner_id;

-- name: quarantine_persona
-- Archives a persona that no user or several users use, with those users.
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
-- Keeps others from referring to a persona, or giving it an owner, until this transaction ends.
SELECT FROM personas WHERE id = %(persona_id)s AND owner_id IS NULL FOR UPDATE;

-- name: referrers_of_personas
-- Other tables of the app whose rows would be deleted or changed with a persona.
SELECT k.conrelid::regclass::text AS relation, a.attname AS column
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
WHERE k.contype = 'f' AND k.confrelid = to_regclass('personas') AND k.conparentid = 0
  AND c.relname <> ALL (%(known)s)
ORDER BY 1, 2;

-- name: remove_persona
-- Removes a quarantined persona from the app's table. The next rule then decides for its users.
DELETE FROM personas WHERE id = %(persona_id)s AND owner_id IS NULL;

-- name: disown
-- Removes the owners that memsync decided, unless they were changed since.
UPDATE personas p SET owner_id = NULL FROM memsync.orphan_persona o
WHERE o.persona_id = p.id AND o.decision IN ('derived', 'assigned') AND p.owner_id = o.owner_id;

-- name: kept_personas
-- The quarantined personas, as they were.
SELECT persona_row AS kept FROM memsync.orphan_persona WHERE decision = 'quarantined';

-- name: restore_defaults
-- Gives the quarantined personas back to the users whose default they were and who have none now.
UPDATE users u SET global_persona_id = o.persona_id
FROM memsync.orphan_persona o CROSS JOIN jsonb_to_recordset(o.used_by)
     AS s(user_id uuid, personality_id uuid)
WHERE o.decision = 'quarantined' AND s.personality_id IS NULL AND u.id = s.user_id
  AND u.global_persona_id IS NULL;

-- name: restore_new_defaults
-- The same in a table user_default_personas that the app made itself, which stays.
INSERT INTO user_default_personas (user_id, persona_id, updated_at)
SELECT u.id, o.persona_id, timezone('UTC', clock_timestamp())
FROM memsync.orphan_persona o CROSS JOIN jsonb_to_recordset(o.used_by)
     AS s(user_id uuid, personality_id uuid) JOIN users u ON u.id = s.user_id
WHERE o.decision = 'quarantined' AND s.personality_id IS NULL
ON CONFLICT (user_id) DO NOTHING;

-- name: restore_new_choices
-- The same for what users chose for one personality, if the app itself renamed that table.
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
-- Removes the notes about orphans, once everything is undone.
-- lint: allow NO-WHERE all of them are settled by then
DELETE FROM memsync.orphan_persona;

-- name: count_referring_rows
-- How many rows of another table refer to each of these personas.
SELECT {column} AS persona_id, count(*) AS total FROM {relation}
WHERE {column} = ANY({personas}::uuid[]) GROUP BY 1;
