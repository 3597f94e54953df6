-- The settings in their old places and in the new tables: copied, compared, copied back.

-- name: size_configs
-- Gives each config the window that it had before the rollback, if one of its personalities still
-- has it, else the window that most of them have.
UPDATE llm_configs c SET context_window_size = m.window_size
FROM (SELECT DISTINCT ON (p.config_id) p.config_id, p.window_size
      FROM (SELECT coalesce(d.llm_config_id, p.llm_config_id) AS config_id,
                   p.context_window_size AS window_size
            FROM personalities p
            LEFT JOIN personality_default_configs d ON d.personality_id = p.id) p
      LEFT JOIN memsync.column_archive a
             ON a.column_name = 'llm_configs.context_window_size' AND a.row_id = p.config_id
      WHERE p.config_id IS NOT NULL
      GROUP BY p.config_id, p.window_size, a.value
      ORDER BY p.config_id, a.value = to_jsonb(p.window_size) DESC NULLS LAST, count(*) DESC,
               p.window_size) m
WHERE c.id = m.config_id AND c.context_window_size <> m.window_size;

-- name: note_sized
-- Notes that configs have their windows. A second time would change windows that were set since.
INSERT INTO memsync.redesign_change (object, change) VALUES ('sized', 'created') ON CONFLICT DO NOTHING;

-- name: take_placed
-- Gives the personalities the configs that the app itself put into the new table.
UPDATE personalities p SET llm_config_id = d.llm_config_id FROM personality_default_configs d
WHERE d.personality_id = p.id AND p.llm_config_id IS DISTINCT FROM d.llm_config_id;

-- name: place_configs
-- Copies the configs of the next personalities, in the order of their ids. The UPDATE changes no
-- value, but fires the sync trigger, which copies.
WITH batch AS (
    SELECT p.id FROM personalities p
    WHERE p.llm_config_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM personality_default_configs d WHERE d.personality_id = p.id)
    ORDER BY p.id LIMIT %(limit)s)
UPDATE personalities SET llm_config_id = llm_config_id WHERE id IN (SELECT id FROM batch);

-- name: pass_sync_triggers
-- Makes the sync triggers ignore this transaction's writes, and plans each batch for its own start.
-- A plan for any start would also have to serve the first batch, and would walk the index from its
-- beginning.
SELECT set_config('memsync.copying_settings', 'on', true) AS passed,
       set_config('plan_cache_mode', 'force_custom_plan', true) AS planned;

-- name: copy_defaults
-- Copies the defaults of the next users, in the order of their ids. Their rows are locked, so that
-- none changes between the reading and the writing.
WITH batch AS (
    SELECT id, global_persona_id, updated_at FROM users
    WHERE %(after)s::uuid IS NULL OR id > %(after)s
    ORDER BY id LIMIT %(limit)s FOR SHARE),
copied AS (
    INSERT INTO user_default_personas (user_id, persona_id, updated_at)
    SELECT id, global_persona_id, updated_at FROM batch WHERE global_persona_id IS NOT NULL
    ON CONFLICT (user_id) DO NOTHING)
SELECT max(id::text)::uuid AS last FROM batch;

-- name: lock_users
-- Locks the next users, in the order of their ids.
WITH batch AS (
    SELECT id FROM users WHERE %(after)s::uuid IS NULL OR id > %(after)s
    ORDER BY id LIMIT %(limit)s FOR NO KEY UPDATE)
SELECT max(id::text)::uuid AS last FROM batch;

-- name: copy_defaults_back
-- Gives the locked users the defaults that user_default_personas has.
UPDATE users u SET global_persona_id = d.persona_id FROM user_default_personas d
WHERE d.user_id = u.id AND u.id <= %(last)s AND (%(after)s::uuid IS NULL OR u.id > %(after)s)
  AND u.global_persona_id IS DISTINCT FROM d.persona_id;

-- name: settle_defaults
-- Fires the sync trigger again for users whose old column differs from the new table.
UPDATE users SET global_persona_id = global_persona_id
WHERE id IN (SELECT u.id
             FROM users u LEFT JOIN user_default_personas d ON d.user_id = u.id
             WHERE u.global_persona_id IS DISTINCT FROM d.persona_id);

-- name: settle_configs
-- The same for personalities and their configs.
UPDATE personalities SET llm_config_id = llm_config_id
WHERE id IN (SELECT p.id FROM personalities p
             LEFT JOIN personality_default_configs d ON d.personality_id = p.id
             WHERE p.llm_config_id IS DISTINCT FROM d.llm_config_id);

-- name: settle_windows
-- The same for personalities and their windows.
UPDATE personalities p SET context_window_size = p.context_window_size
FROM llm_configs c
WHERE c.id = p.llm_config_id AND c.context_window_size <> p.context_window_size;

-- name: copy_configs_back
-- Gives the personalities the configs that personality_default_configs has, and their windows.
UPDATE personalities p SET llm_config_id = c.id, context_window_size = c.context_window_size
FROM personality_default_configs d JOIN llm_configs c ON c.id = d.llm_config_id
WHERE d.personality_id = p.id
  AND (p.llm_config_id, p.context_window_size) IS DISTINCT FROM (c.id, c.context_window_size);

-- name: restore_windows
-- Gives personalities without a config their archived window.
UPDATE personalities p SET context_window_size = a.value::int FROM memsync.column_archive a
WHERE a.column_name = 'personalities.context_window_size' AND a.row_id = p.id
  AND p.llm_config_id IS NULL AND p.context_window_size <> a.value::int;
