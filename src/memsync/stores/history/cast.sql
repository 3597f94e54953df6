-- Adds the users, personas and personalities whom exchanges name, and reads their names.

-- name: insert_user
-- A user who has no account on a chat platform: such an id would be a number.
INSERT INTO users (id, discord_id, username, created_at, updated_at)
VALUES (%(id)s, %(discord_id)s, %(name)s, timezone('UTC', clock_timestamp()),
        timezone('UTC', clock_timestamp()));

-- name: insert_persona
-- A persona of a user.
INSERT INTO personas (id, name, content, owner_id, created_at, updated_at)
VALUES (%(id)s, %(name)s, '', %(owner_id)s, timezone('UTC', clock_timestamp()),
        timezone('UTC', clock_timestamp()));

-- name: insert_default_persona
-- The persona that the user has from now on, unless a choice says otherwise.
INSERT INTO user_default_personas (user_id, persona_id, updated_at)
VALUES (%(user_id)s, %(persona_id)s, timezone('UTC', clock_timestamp()));

-- name: insert_personality
-- A character that answers.
INSERT INTO personalities
       (id, name, slug, character_info, personality_traits, created_at, updated_at)
VALUES (%(id)s, %(name)s, %(slug)s, '', '', timezone('UTC', clock_timestamp()),
        timezone('UTC', clock_timestamp()));

-- name: names_of_speakers
-- What the app calls each pair of a persona and a personality. Its texts keep a name on one line.
SELECT DISTINCT p.id AS persona_id, y.id AS personality_id,
       translate(coalesce(nullif(p.preferred_name, ''), p.name), E'\r\n', '  ') AS persona,
       translate(coalesce(nullif(y.display_name, ''), y.name), E'\r\n', '  ') AS personality
FROM unnest(%(personas)s::uuid[], %(personalities)s::uuid[]) AS w(persona_id, personality_id)
JOIN personas p ON p.id = w.persona_id
JOIN personalities y ON y.id = w.personality_id;
