-- Users who have messages but no default persona. Reads only.
-- `--unresolved` decides about those of them who chose no persona for the personality.
\set ON_ERROR_STOP on
-- Defaults and choices are where the redesign put them, where they were before, or in both places.
SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('conversation_history')
               AND attname = 'user_id' AND NOT attisdropped) AS has_users,
       coalesce(to_regclass('user_default_personas'), to_regclass('users'))::text AS defaults,
       coalesce(to_regclass('user_personality_configs'),
                to_regclass('user_personality_settings'))::text AS choices,
       coalesce(to_regclass('user_personality_settings'),
                to_regclass('user_personality_configs'))::text AS earlier \gset
\if :has_users
-- As json, because a missing column is NULL then, and no error.
WITH has_default AS (
    SELECT coalesce(j ->> 'user_id', j ->> 'id')::uuid AS user_id
    FROM (SELECT to_jsonb(d) AS j FROM :"defaults" d UNION ALL SELECT to_jsonb(u) FROM users u) all_of
    WHERE coalesce(j ->> 'persona_id', j ->> 'global_persona_id') IS NOT NULL
),
chose AS (
    SELECT user_id, personality_id FROM :"choices" WHERE persona_id IS NOT NULL
    UNION SELECT user_id, personality_id FROM :"earlier" WHERE persona_id IS NOT NULL
)
SELECT u.id AS user_id, u.username, h.personality_id, count(*) AS messages,
       c.user_id IS NOT NULL AS chose_one_for_this_personality
FROM conversation_history h
JOIN users u ON u.id = h.user_id
LEFT JOIN chose c ON c.user_id = h.user_id AND c.personality_id = h.personality_id
WHERE NOT EXISTS (SELECT FROM has_default d WHERE d.user_id = h.user_id)
GROUP BY 1, 2, 3, 5
ORDER BY chose_one_for_this_personality, messages DESC;
\else
\echo 'there is no user_id any more: every message has its persona'
\endif
