-- The default personas that memsync created, once a rollback has taken persona_id back.

-- name: created_personas
-- Those that still exist. `edited`: somebody wrote into it since. `awaited`: a memory of its user
-- is still to be written.
SELECT c.user_id, c.persona_id,
       p.content <> '' OR p.description IS DISTINCT FROM 'Default persona'
       OR p.name NOT LIKE '%%''s Persona' AS edited,
       EXISTS (SELECT FROM memsync.outbox o JOIN conversation_history h ON h.id = o.point_id
               WHERE h.user_id = c.user_id) AS awaited
FROM memsync.created_persona c JOIN personas p ON p.id = c.persona_id
ORDER BY c.user_id;

-- name: lock_created_personas
-- Keeps others from referring to them until this transaction ends.
SELECT FROM personas WHERE id IN (SELECT persona_id FROM memsync.created_persona)
ORDER BY id FOR UPDATE;

-- name: columns_with_personas
-- The columns of the app's tables that hold personas: by a foreign key, or by their name. The
-- places of the users' defaults are left out.
SELECT c.oid::regclass::text AS relation, a.attname::text AS column
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.atttypid = 'uuid'::regtype
  AND n.nspname NOT IN ('memsync', 'memsync_shadow', 'pg_catalog', 'information_schema')
  AND c.oid IS DISTINCT FROM to_regclass('user_default_personas')
  AND (c.oid, a.attname) IS DISTINCT FROM (to_regclass('users'), 'global_persona_id')
  AND (a.attname = 'persona_id' AND n.oid IN (SELECT relnamespace FROM pg_class
                                              WHERE oid = to_regclass('personas'))
       OR EXISTS (SELECT FROM pg_constraint k
                  WHERE k.conrelid = c.oid AND k.contype = 'f' AND a.attnum = ANY (k.conkey)
                    AND k.confrelid = to_regclass('personas')))
ORDER BY 1, 2;

-- name: created_personas_used
-- Those of them that a column of another table holds.
SELECT persona_id FROM memsync.created_persona c
WHERE EXISTS (SELECT FROM {relation} r WHERE r.{column} = c.persona_id);

-- name: created_personas_lent
-- Those of them that are another user's default.
SELECT c.persona_id FROM memsync.created_persona c JOIN ({default}) d USING (persona_id)
WHERE d.user_id <> c.user_id;

-- name: unset_created_defaults
-- Takes them from the users whose default they are.
UPDATE users SET global_persona_id = NULL WHERE global_persona_id = ANY(%(ids)s);

-- name: unset_new_created_defaults
-- The same in the table of defaults that the redesign made.
DELETE FROM user_default_personas WHERE persona_id = ANY(%(ids)s);

-- name: withdraw_personas
-- Removes them and the decisions for them. Their ids are kept, so that a later run makes the same
-- ones.
WITH undecided AS (DELETE FROM memsync.persona_map WHERE persona_id = ANY(%(ids)s)),
     unarchived AS (DELETE FROM memsync.row_archive WHERE persona_id = ANY(%(ids)s)),
     noted AS (UPDATE memsync.created_persona SET withdrawn = true WHERE persona_id = ANY(%(ids)s))
DELETE FROM personas WHERE id = ANY(%(ids)s);
