-- The forks and windows that the redesign has to decide or change.

-- name: conflicting_windows
-- Configs whose personalities have different windows: each other window becomes a fork.
SELECT c.id AS config_id, c.name, array_agg(DISTINCT p.context_window_size) AS windows
FROM llm_configs c JOIN personalities p ON p.llm_config_id = c.id
GROUP BY c.id, c.name HAVING count(DISTINCT p.context_window_size) > 1 ORDER BY c.id;

-- name: windows_taken
-- How many choices of a config take that config's window from then on, and how many personalities
-- without a config have a window that nothing reads any more.
SELECT (SELECT count(*) FROM ({choices}) c JOIN personalities p ON p.id = c.personality_id
        WHERE c.llm_config_id IS NOT NULL
          AND c.llm_config_id IS DISTINCT FROM p.llm_config_id) AS choices,
       (SELECT count(*) FROM personalities WHERE llm_config_id IS NULL) AS unused;

-- fragment: choices_old
-- The choices, before the redesign.
SELECT personality_id, llm_config_id FROM user_personality_settings;

-- fragment: choices_new
-- The choices, after the redesign.
SELECT personality_id, llm_config_id FROM user_personality_configs;
