-- Asks whose personas are whose, and which personality keeps memories.

-- name: owners_page
-- The next owners by id, with their personas. A persona without an owner is its own.
SELECT o.owner_id, p.id AS persona_id
FROM (SELECT DISTINCT coalesce(owner_id, id) AS owner_id FROM personas
      WHERE coalesce(owner_id, id) > %(after)s ORDER BY 1 LIMIT %(limit)s) o
JOIN personas p ON coalesce(p.owner_id, p.id) = o.owner_id
ORDER BY o.owner_id, p.id;

-- name: personas_of_owners
-- The personas of the given owners.
SELECT coalesce(owner_id, id) AS owner_id, id AS persona_id FROM personas
WHERE owner_id = ANY(%(ids)s) OR owner_id IS NULL AND id = ANY(%(ids)s)
ORDER BY 1, 2;

-- name: owners_of
-- The owners of those of the given ids that are personas.
SELECT id AS persona_id, coalesce(owner_id, id) AS owner_id FROM personas WHERE id = ANY(%(ids)s);

-- fragment: defaults_old
-- The default personas before the redesign.
SELECT id AS user_id, global_persona_id AS persona_id FROM users
WHERE global_persona_id IS NOT NULL;

-- fragment: defaults_new
-- The same after the redesign.
SELECT user_id, persona_id FROM user_default_personas;

-- fragment: defaults_both
-- The same while the redesign is half done.
SELECT u.id AS user_id, coalesce(d.persona_id, u.global_persona_id) AS persona_id
FROM users u LEFT JOIN user_default_personas d ON d.user_id = u.id
WHERE coalesce(d.persona_id, u.global_persona_id) IS NOT NULL;

-- name: default_personas_of
-- Those of the given ids that are users, with their default personas, if they have one.
SELECT u.id AS user_id, d.persona_id FROM users u
LEFT JOIN ({defaults}) d ON d.user_id = u.id
WHERE u.id = ANY(%(ids)s);

-- name: without_memory
-- The personalities whose memory is switched off. A schema without the switch keeps all.
SELECT id FROM personalities p WHERE to_jsonb(p) ->> 'memory_enabled' = 'false';
