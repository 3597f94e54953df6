-- Forks: configs that were copied because their personalities had different windows.

-- name: kept_forks
-- The forks that a rollback removed, as they were. An owner who no longer exists becomes NULL.
SELECT f.config_row || jsonb_build_object('owner_id', (
           SELECT u.id FROM users u WHERE u.id::text = f.config_row ->> 'owner_id')) AS kept
FROM memsync.config_fork f JOIN llm_configs c ON c.id = f.config_id
WHERE f.config_row IS NOT NULL;

-- name: take_forks
-- Gives personalities back the forks that they had, if their config and window did not change
-- meanwhile.
UPDATE personalities p SET llm_config_id = f.fork_id
FROM memsync.column_archive a
JOIN memsync.config_fork f ON to_jsonb(f.fork_id) = a.value
JOIN llm_configs c ON c.id = f.fork_id
WHERE a.column_name = 'personalities.llm_config_id' AND a.row_id = p.id AND p.llm_config_id = f.config_id
  AND p.context_window_size = c.context_window_size;

-- name: take_chosen_forks
-- The same for the configs that users chose.
UPDATE user_personality_configs u SET llm_config_id = f.fork_id
FROM memsync.column_archive a
JOIN memsync.config_fork f ON to_jsonb(f.fork_id) = a.value
JOIN llm_configs c ON c.id = f.fork_id
WHERE a.column_name = 'user_personality_configs.llm_config_id' AND a.row_id = u.id
  AND u.llm_config_id = f.config_id;

-- name: forget_forks
-- Removes these notes, because the forks exist again.
WITH gone AS (DELETE FROM memsync.column_archive
              WHERE column_name IN ('personalities.llm_config_id',
                              'user_personality_configs.llm_config_id'))
UPDATE memsync.config_fork SET config_row = NULL WHERE config_row IS NOT NULL;

-- name: remember_forked
-- Archives which personalities have a fork.
INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'personalities.llm_config_id', p.id, to_jsonb(f.fork_id)
FROM personalities p JOIN memsync.config_fork f ON f.fork_id = p.llm_config_id
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value;

-- name: remember_chosen_forks
-- The same for the configs that users chose.
INSERT INTO memsync.column_archive (column_name, row_id, value)
SELECT 'user_personality_configs.llm_config_id', c.id, to_jsonb(f.fork_id)
FROM user_personality_configs c JOIN memsync.config_fork f ON f.fork_id = c.llm_config_id
ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value;

-- name: leave_forks
-- Gives personalities the config again that their fork was made from.
UPDATE personalities p SET llm_config_id = o.id
FROM memsync.config_fork f LEFT JOIN llm_configs o ON o.id = f.config_id
WHERE f.fork_id = p.llm_config_id;

-- name: leave_placed_forks
-- The same in a table personality_default_configs that the app made itself, which stays.
UPDATE personality_default_configs d SET llm_config_id = f.config_id
FROM memsync.config_fork f JOIN llm_configs o ON o.id = f.config_id
WHERE f.fork_id = d.llm_config_id;

-- name: leave_chosen_forks
-- The same for the configs that users chose.
UPDATE user_personality_configs c SET llm_config_id = o.id
FROM memsync.config_fork f LEFT JOIN llm_configs o ON o.id = f.config_id
WHERE f.fork_id = c.llm_config_id;

-- name: keep_forks
-- Archives the forks as they are now, so that a later run makes the same ones.
UPDATE memsync.config_fork f SET config_row = to_jsonb(c) FROM llm_configs c WHERE c.id = f.fork_id;

-- name: remove_forks
-- Removes the forks; nothing refers to them any more.
DELETE FROM llm_configs c USING memsync.config_fork f WHERE f.fork_id = c.id;
