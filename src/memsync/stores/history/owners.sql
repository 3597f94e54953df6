-- Asks whose personas are whose, and which personality keeps memories.

-- name: owners_page
-- The next owners by id, with their personas. A persona without an owner is its own. Both kinds are
-- read in the order of an index, so that a page costs what it has.
WITH page AS (
    SELECT owner_id FROM (
        (SELECT DISTINCT owner_id FROM personas WHERE owner_id > %(after)s
         ORDER BY owner_id LIMIT %(limit)s)
        UNION
        (SELECT id FROM personas WHERE owner_id IS NULL AND id > %(after)s
         ORDER BY id LIMIT %(limit)s)) o
    ORDER BY owner_id LIMIT %(limit)s)
SELECT o.owner_id, p.id AS persona_id FROM page o JOIN personas p ON p.owner_id = o.owner_id
UNION
SELECT o.owner_id, p.id FROM page o JOIN personas p ON p.id = o.owner_id AND p.owner_id IS NULL
ORDER BY owner_id, persona_id;

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
