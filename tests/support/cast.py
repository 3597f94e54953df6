"""The people of the lab, as rows: three users, three personas, two personalities."""

CAST = """
INSERT INTO users (id, discord_id, username, updated_at)
SELECT ('cccccccc-0000-4000-8000-00000000000' || n)::uuid, n, 'user ' || n, now()
FROM generate_series(1, 3) n;
INSERT INTO personas (id, name, content, owner_id, updated_at)
SELECT ('aaaaaaaa-0000-4000-8000-00000000000' || n)::uuid, 'persona ' || n, 'I am.',
       ('cccccccc-0000-4000-8000-00000000000' || CASE n WHEN 'c' THEN 2 ELSE 1 END)::uuid, now()
FROM unnest(ARRAY['a', 'b', 'c']) n;
UPDATE users u SET global_persona_id =
    (SELECT min(id::text)::uuid FROM personas WHERE owner_id = u.id);
INSERT INTO personalities (id, name, slug, character_info, personality_traits, updated_at)
SELECT ('bbbbbbbb-0000-4000-8000-00000000000' || n)::uuid, 'Ada', n, '', '', now()
FROM unnest(ARRAY['a', 'b']) n;
"""
