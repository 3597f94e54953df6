-- Users who have messages but no default persona, before the redesign. Reads only.
-- Those of them without a choice for the personality are what `--unresolved` decides about.
\set ON_ERROR_STOP on
SELECT u.id AS user_id, u.username, h.personality_id, count(*) AS messages,
       s.persona_id IS NOT NULL AS chose_one_for_this_personality
FROM conversation_history h
JOIN users u ON u.id = h.user_id
LEFT JOIN user_personality_settings s
       ON s.user_id = h.user_id AND s.personality_id = h.personality_id
WHERE u.global_persona_id IS NULL
GROUP BY 1, 2, 3, 5
ORDER BY chose_one_for_this_personality, messages DESC;
