-- The functions of the mirror (mirror.py), by name. They run with their owner's rights, because
-- clients have none in the schema memsync; {search_path} pins where they find the app's tables.

-- name: mirror_default_of_user
-- From users.global_persona_id to user_default_personas.
CREATE OR REPLACE FUNCTION memsync.mirror_default_of_user() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    IF NEW.global_persona_id IS NULL THEN
        DELETE FROM user_default_personas WHERE user_id = NEW.id;
    ELSE
        INSERT INTO user_default_personas (user_id, persona_id, updated_at)
        VALUES (NEW.id, NEW.global_persona_id, NEW.updated_at)
        ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id,
                                          updated_at = excluded.updated_at
        WHERE user_default_personas.persona_id <> excluded.persona_id;
    END IF;
    RETURN NULL;
END $$;

-- name: mirror_default_chosen
-- And back.
CREATE OR REPLACE FUNCTION memsync.mirror_default_chosen() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.user_id <> NEW.user_id THEN
        UPDATE users SET global_persona_id = NULL
        WHERE id = OLD.user_id AND global_persona_id = OLD.persona_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE users SET global_persona_id = NEW.persona_id
        WHERE id = NEW.user_id AND global_persona_id IS DISTINCT FROM NEW.persona_id;
    END IF;
    RETURN NULL;
END $$;

-- name: config_with_window
-- The config like this one that has this window. The window was the personality's and is now its
-- config's: a config that serves personalities of different windows is forked, once for each.
CREATE OR REPLACE FUNCTION memsync.config_with_window(
    of_config uuid, wanted_size int, for_personality uuid)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {search_path} AS $$
DECLARE
    standing int;
    original uuid;
    forked uuid;
BEGIN
    SELECT context_window_size INTO standing FROM llm_configs
    WHERE id = of_config FOR NO KEY UPDATE;
    IF NOT FOUND OR standing = wanted_size THEN
        RETURN of_config;
    END IF;
    IF NOT EXISTS (SELECT FROM personalities
                   WHERE llm_config_id = of_config AND id <> for_personality)
       AND NOT EXISTS (SELECT FROM user_personality_configs WHERE llm_config_id = of_config) THEN
        UPDATE llm_configs SET context_window_size = wanted_size WHERE id = of_config;
        RETURN of_config;
    END IF;
    original := coalesce((SELECT f.config_id FROM memsync.config_fork f
                          WHERE f.fork_id = of_config), of_config);
    SELECT c.id INTO forked FROM llm_configs c
    WHERE c.context_window_size = wanted_size
      AND (c.id = original OR c.id IN (SELECT f.fork_id FROM memsync.config_fork f
                                       WHERE f.config_id = original))
    ORDER BY c.id = original DESC, c.id LIMIT 1;
    IF FOUND THEN
        RETURN forked;
    END IF;
    /* The same id each time the migration goes forward again, unless that one was changed since. */
    forked := md5(original::text || '/' || wanted_size)::uuid;
    IF EXISTS (SELECT FROM llm_configs WHERE id = forked) THEN
        forked := gen_random_uuid();
    END IF;
    INSERT INTO llm_configs
    SELECT (jsonb_populate_record(c, coalesce(
        (SELECT f.said FROM memsync.config_fork f WHERE f.fork_id = forked),
        jsonb_build_object(
            'id', forked, 'name', left(c.name, 230) || ' (window ' || wanted_size || ')',
            'context_window_size', wanted_size, 'is_default', false)))).*
    FROM llm_configs c WHERE c.id = original;
    INSERT INTO memsync.config_fork (fork_id, config_id, window_size)
    VALUES (forked, original, wanted_size) ON CONFLICT (fork_id) DO UPDATE SET said = NULL;
    RETURN forked;
END $$;

-- name: mirror_config_of_personality
-- From the personality's config and window to personality_default_configs.
CREATE OR REPLACE FUNCTION memsync.mirror_config_of_personality() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
DECLARE
    chosen uuid;
BEGIN
    IF NEW.llm_config_id IS NULL THEN
        DELETE FROM personality_default_configs WHERE personality_id = NEW.id;
        RETURN NULL;
    END IF;
    chosen := memsync.config_with_window(NEW.llm_config_id, NEW.context_window_size, NEW.id);
    INSERT INTO personality_default_configs (personality_id, llm_config_id, updated_at)
    VALUES (NEW.id, chosen, NEW.updated_at)
    ON CONFLICT (personality_id) DO UPDATE SET llm_config_id = excluded.llm_config_id,
                                               updated_at = excluded.updated_at
    WHERE personality_default_configs.llm_config_id <> excluded.llm_config_id;
    UPDATE personalities SET llm_config_id = chosen
    WHERE id = NEW.id AND llm_config_id = NEW.llm_config_id AND llm_config_id <> chosen;
    RETURN NULL;
END $$;

-- name: mirror_config_chosen
-- And back.
CREATE OR REPLACE FUNCTION memsync.mirror_config_chosen() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.personality_id <> NEW.personality_id THEN
        UPDATE personalities SET llm_config_id = NULL
        WHERE id = OLD.personality_id AND llm_config_id = OLD.llm_config_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE personalities p
        SET llm_config_id = c.id, context_window_size = c.context_window_size
        FROM llm_configs c
        WHERE c.id = NEW.llm_config_id AND p.id = NEW.personality_id
          AND (p.llm_config_id, p.context_window_size)
              IS DISTINCT FROM (c.id, c.context_window_size);
    END IF;
    RETURN NULL;
END $$;

-- name: mirror_bare_config_of_personality
-- The same where personalities have no window (any more).
CREATE OR REPLACE FUNCTION memsync.mirror_config_of_personality() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    IF NEW.llm_config_id IS NULL THEN
        DELETE FROM personality_default_configs WHERE personality_id = NEW.id;
    ELSE
        INSERT INTO personality_default_configs (personality_id, llm_config_id, updated_at)
        VALUES (NEW.id, NEW.llm_config_id, NEW.updated_at)
        ON CONFLICT (personality_id) DO UPDATE SET llm_config_id = excluded.llm_config_id,
                                          updated_at = excluded.updated_at
        WHERE personality_default_configs.llm_config_id <> excluded.llm_config_id;
    END IF;
    RETURN NULL;
END $$;

-- name: mirror_bare_config_chosen
-- And back.
CREATE OR REPLACE FUNCTION memsync.mirror_config_chosen() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.personality_id <> NEW.personality_id THEN
        UPDATE personalities SET llm_config_id = NULL
        WHERE id = OLD.personality_id AND llm_config_id = OLD.llm_config_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE personalities SET llm_config_id = NEW.llm_config_id
        WHERE id = NEW.personality_id AND llm_config_id IS DISTINCT FROM NEW.llm_config_id;
    END IF;
    RETURN NULL;
END $$;

-- name: mirror_window_of_config
-- From a config's window to its personalities.
CREATE OR REPLACE FUNCTION memsync.mirror_window_of_config() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    UPDATE personalities SET context_window_size = NEW.context_window_size
    WHERE llm_config_id = NEW.id AND context_window_size <> NEW.context_window_size;
    RETURN NULL;
END $$;

-- name: mirror_default_is_global
-- What is the default for all is open to all; a new version of the app may say so of others too.
CREATE OR REPLACE FUNCTION memsync.mirror_default_is_global() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.is_global := NEW.is_global OR NEW.is_default;
    ELSIF NEW.is_default <> OLD.is_default AND NEW.is_global = OLD.is_global THEN
        NEW.is_global := NEW.is_default;
    END IF;
    RETURN NEW;
END $$;
