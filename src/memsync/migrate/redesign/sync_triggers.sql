-- The sync triggers of the settings keep the old places and the new tables in sync while both
-- versions of the app run. The functions run with their owner's privileges, because clients have
-- none in the schema memsync. {search_path} pins where they find the app's tables.
--
-- Lock order: a client that writes an old place locks the old row before the new one; a client that
-- writes a new table does the reverse. If the two wait for each other, the writer of the old place
-- gives way: it leaves the new row to the other client, which waits for the old row and writes it
-- next. If that client fails after all, the old place is right, and the statements `settle_*`
-- (settings_copy.sql) copy it once more before it is dropped. The writer of a new table also gives
-- way, after 300 ms in place of 50, to a client that deletes the user or personality and waits for
-- it.

-- name: is_waited_for
-- Whether another session waits for this one.
CREATE OR REPLACE FUNCTION memsync.is_waited_for() RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT EXISTS (SELECT FROM pg_locks w
                   WHERE NOT w.granted AND pg_backend_pid() = ANY (pg_blocking_pids(w.pid)))
$$;

-- name: sync_place
-- Copies a write to the other place. It tries again and again. Each try waits for a lock no longer
-- than the trigger's argument, which is below the default deadlock_timeout. All tries together wait
-- no longer than the client's own lock_timeout. {window} is NULL if personalities have no window
-- (any more).
CREATE OR REPLACE FUNCTION memsync.sync_place() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
DECLARE
    allowed text := current_setting('lock_timeout');
    since timestamptz := clock_timestamp();
BEGIN
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', TG_ARGV[0], true);
            CASE TG_TABLE_NAME
            WHEN 'users' THEN
                PERFORM memsync.sync_default(NEW.id, NEW.global_persona_id, NEW.updated_at);
            WHEN 'personalities' THEN
                PERFORM memsync.sync_config(
                    NEW.id, NEW.llm_config_id, {window}, NEW.updated_at);
            WHEN 'user_default_personas' THEN
                PERFORM memsync.sync_default_chosen(
                    OLD.user_id, OLD.persona_id, OLD.updated_at, NEW.user_id, NEW.persona_id);
            WHEN 'personality_default_configs' THEN
                PERFORM memsync.sync_config_chosen(
                    OLD.personality_id, OLD.llm_config_id, OLD.updated_at,
                    NEW.personality_id, NEW.llm_config_id);
            END CASE;
            PERFORM set_config('lock_timeout', allowed, true);
            RETURN NULL;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF memsync.is_waited_for() THEN
                RETURN NULL;
            END IF;
            IF allowed <> '0' AND clock_timestamp() > since + allowed::interval THEN
                RAISE;
            END IF;
        END;
    END LOOP;
END $$;

-- name: sync_lock_new_place
-- A deletion of a persona or config locks the rows of the new table first, as a writer of that
-- table does, because the foreign keys alone might lock in the other order.
CREATE OR REPLACE FUNCTION memsync.sync_lock_new_place() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    IF TG_TABLE_NAME = 'personas' THEN
        PERFORM FROM user_default_personas WHERE persona_id = OLD.id ORDER BY user_id FOR UPDATE;
    ELSE
        PERFORM FROM personality_default_configs WHERE llm_config_id = OLD.id
        ORDER BY personality_id FOR UPDATE;
    END IF;
    RETURN OLD;
END $$;

-- name: sync_default
-- Copies users.global_persona_id to user_default_personas.
CREATE OR REPLACE FUNCTION memsync.sync_default(of_user uuid, persona uuid, at timestamp)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    IF persona IS NULL THEN
        DELETE FROM user_default_personas WHERE user_id = of_user;
    ELSE
        INSERT INTO user_default_personas (user_id, persona_id, updated_at)
        VALUES (of_user, persona, at)
        ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id,
                                          updated_at = excluded.updated_at
        WHERE user_default_personas.persona_id <> excluded.persona_id;
    END IF;
END $$;

-- name: sync_default_chosen
-- The reverse. It locks the user before it compares, so that it sees what another client wrote.
CREATE OR REPLACE FUNCTION memsync.sync_default_chosen(
    was_of uuid, was uuid, at timestamp, of_user uuid, persona uuid)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
DECLARE
    standing uuid;
BEGIN
    IF was_of <> of_user OR of_user IS NULL THEN
        SELECT global_persona_id INTO standing FROM users WHERE id = was_of FOR NO KEY UPDATE;
        IF standing = was THEN
            UPDATE users SET global_persona_id = NULL WHERE id = was_of;
        ELSIF standing IS NOT NULL THEN
            /* Another default was written there while this one was deleted. */
            INSERT INTO user_default_personas (user_id, persona_id, updated_at)
            VALUES (was_of, standing, at) ON CONFLICT (user_id) DO NOTHING;
        END IF;
    END IF;
    IF of_user IS NOT NULL THEN
        PERFORM FROM users WHERE id = of_user FOR NO KEY UPDATE;
        UPDATE users SET global_persona_id = persona
        WHERE id = of_user AND global_persona_id IS DISTINCT FROM persona;
    END IF;
END $$;

-- name: config_with_window
-- The config like this one that has the wanted window. The window was the personality's and is now
-- its config's, so a config of personalities with different windows is forked, once for each.
CREATE OR REPLACE FUNCTION memsync.config_with_window(
    of_config uuid, wanted_size int, for_personality uuid)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {search_path} AS $$
DECLARE
    standing int;
    original uuid;
    forked uuid;
BEGIN
    /* Callers that agree with the config share its lock; the others decide one at a time. */
    PERFORM FROM llm_configs
    WHERE id = of_config AND context_window_size = wanted_size FOR SHARE;
    IF FOUND THEN
        RETURN of_config;
    END IF;
    SELECT coalesce(
        (SELECT f.config_id FROM memsync.config_fork f JOIN llm_configs c ON c.id = f.config_id
         WHERE f.fork_id = of_config), of_config) INTO original;
    PERFORM FROM llm_configs WHERE id = original FOR NO KEY UPDATE;
    SELECT context_window_size INTO standing FROM llm_configs
    WHERE id = of_config FOR NO KEY UPDATE;
    IF NOT FOUND OR standing = wanted_size THEN
        RETURN of_config;
    END IF;
    IF NOT EXISTS (SELECT FROM personalities
                   WHERE llm_config_id = of_config AND id <> for_personality)
       AND NOT EXISTS (SELECT FROM personality_default_configs
                       WHERE llm_config_id = of_config AND personality_id <> for_personality)
       AND NOT EXISTS (SELECT FROM user_personality_configs WHERE llm_config_id = of_config) THEN
        UPDATE llm_configs SET context_window_size = wanted_size WHERE id = of_config;
        RETURN of_config;
    END IF;
    SELECT c.id INTO forked FROM llm_configs c
    WHERE c.context_window_size = wanted_size
      AND (c.id = original OR c.id IN (SELECT f.fork_id FROM memsync.config_fork f
                                       WHERE f.config_id = original))
    ORDER BY c.id = original DESC, c.id LIMIT 1;
    IF FOUND THEN
        RETURN forked;
    END IF;
    /* Each run makes the same id, unless a config that was changed since has it. */
    forked := md5(original::text || '/' || wanted_size)::uuid;
    IF EXISTS (SELECT FROM llm_configs WHERE id = forked) THEN
        forked := gen_random_uuid();
    END IF;
    INSERT INTO llm_configs ({config_columns})
    SELECT {config_columns} FROM (
        SELECT (jsonb_populate_record(c, jsonb_build_object(
            'id', forked, 'name', left(c.name, 230) || ' (window ' || wanted_size || ')',
            'context_window_size', wanted_size, 'is_default', false))).*
        FROM llm_configs c WHERE c.id = original) AS fork;
    INSERT INTO memsync.config_fork (fork_id, config_id, window_size)
    VALUES (forked, original, wanted_size) ON CONFLICT (fork_id) DO UPDATE SET config_row = NULL;
    RETURN forked;
END $$;

-- name: sync_config
-- Copies the config and window of a personality to personality_default_configs.
CREATE OR REPLACE FUNCTION memsync.sync_config(
    of_personality uuid, config uuid, size int, at timestamp)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
DECLARE
    chosen uuid := config;
BEGIN
    IF config IS NULL THEN
        DELETE FROM personality_default_configs WHERE personality_id = of_personality;
        RETURN;
    END IF;
    IF size IS NOT NULL THEN
        chosen := memsync.config_with_window(config, size, of_personality);
    END IF;
    INSERT INTO personality_default_configs (personality_id, llm_config_id, updated_at)
    VALUES (of_personality, chosen, at)
    ON CONFLICT (personality_id) DO UPDATE SET llm_config_id = excluded.llm_config_id,
                                               updated_at = excluded.updated_at
    WHERE personality_default_configs.llm_config_id <> excluded.llm_config_id;
    UPDATE personalities SET llm_config_id = chosen
    WHERE id = of_personality AND llm_config_id = config AND llm_config_id <> chosen;
END $$;

-- name: sync_config_chosen
-- The reverse: the config of the personality, with its window ({take_window}).
CREATE OR REPLACE FUNCTION memsync.sync_config_chosen(
    was_of uuid, was uuid, at timestamp, of_personality uuid, config uuid)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
DECLARE
    standing uuid;
    size int;
BEGIN
    IF was_of <> of_personality OR of_personality IS NULL THEN
        SELECT llm_config_id INTO standing FROM personalities WHERE id = was_of FOR NO KEY UPDATE;
        IF standing = was THEN
            UPDATE personalities SET llm_config_id = NULL WHERE id = was_of;
        ELSIF standing IS NOT NULL THEN
            /* Another config was written there while this one was deleted. */
            INSERT INTO personality_default_configs (personality_id, llm_config_id, updated_at)
            VALUES (was_of, standing, at) ON CONFLICT (personality_id) DO NOTHING;
        END IF;
    END IF;
    IF of_personality IS NOT NULL THEN
        SELECT context_window_size INTO size FROM llm_configs WHERE id = config FOR SHARE;
        PERFORM FROM personalities WHERE id = of_personality FOR NO KEY UPDATE;
        UPDATE personalities SET llm_config_id = config{take_window}
        WHERE id = of_personality AND (llm_config_id IS DISTINCT FROM config{other_window});
    END IF;
END $$;

-- name: sync_window_of_config
-- Copies the window of a config to its personalities.
CREATE OR REPLACE FUNCTION memsync.sync_window_of_config() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    UPDATE personalities SET context_window_size = NEW.context_window_size
    WHERE llm_config_id = NEW.id AND context_window_size <> NEW.context_window_size;
    RETURN NULL;
END $$;

-- name: sync_default_is_global
-- A default config is global too. The new version of the app may make other configs global as well.
CREATE OR REPLACE FUNCTION memsync.sync_default_is_global() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {search_path} AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.is_global := NEW.is_global OR NEW.is_default;
    ELSIF NEW.is_default <> OLD.is_default AND NEW.is_global = OLD.is_global THEN
        NEW.is_global := NEW.is_default;
    END IF;
    RETURN NEW;
END $$;

-- name: revoke_settings_functions
-- Postgres checks EXECUTE when a trigger is created, not when it fires. So clients need no grant,
-- and without one they cannot put the functions on a table of their own.
-- https://www.postgresql.org/docs/current/sql-createtrigger.html
REVOKE ALL ON FUNCTION memsync.is_waited_for(), memsync.config_with_window(uuid, int, uuid),
    memsync.sync_default(uuid, uuid, timestamp), memsync.sync_config(uuid, uuid, int, timestamp),
    memsync.sync_default_chosen(uuid, uuid, timestamp, uuid, uuid),
    memsync.sync_config_chosen(uuid, uuid, timestamp, uuid, uuid), memsync.sync_place(),
    memsync.sync_lock_new_place(), memsync.sync_window_of_config(),
    memsync.sync_default_is_global() FROM PUBLIC;

-- name: drop_settings_functions
-- Drops all the functions that still exist.
DROP FUNCTION IF EXISTS memsync.is_waited_for(), memsync.config_with_window(uuid, int, uuid),
    memsync.sync_default(uuid, uuid, timestamp), memsync.sync_config(uuid, uuid, int, timestamp),
    memsync.sync_default_chosen(uuid, uuid, timestamp, uuid, uuid),
    memsync.sync_config_chosen(uuid, uuid, timestamp, uuid, uuid), memsync.sync_place(),
    memsync.sync_lock_new_place(), memsync.sync_window_of_config(),
    memsync.sync_default_is_global();

-- fragment: not_copying
-- memsync's own copies lock the rows on both sides, and need no trigger.
current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on';

-- name: create_default_trigger_on_users
-- Copies a default from the old place to the new table.
CREATE TRIGGER memsync_sync_default AFTER INSERT OR UPDATE OF global_persona_id ON users
    FOR EACH ROW WHEN ({not_copying}) EXECUTE FUNCTION memsync.sync_place('50ms');

-- name: create_default_trigger_on_defaults
-- The reverse.
CREATE TRIGGER memsync_sync_default AFTER INSERT OR UPDATE OR DELETE ON user_default_personas
    FOR EACH ROW WHEN ({not_copying}) EXECUTE FUNCTION memsync.sync_place('300ms');

-- name: create_default_trigger_on_personas
-- Locks the rows that a deletion of their persona will delete.
CREATE TRIGGER memsync_sync_default BEFORE DELETE ON personas
    FOR EACH ROW WHEN ({not_copying}) EXECUTE FUNCTION memsync.sync_lock_new_place();

-- name: create_config_trigger_on_personalities
-- Copies a config, and its window while that column exists, from the old place to the new table.
CREATE TRIGGER memsync_sync_config AFTER INSERT OR UPDATE OF llm_config_id{window_column}
    ON personalities
    FOR EACH ROW WHEN ({not_copying}) EXECUTE FUNCTION memsync.sync_place('50ms');

-- name: create_config_trigger_on_configs
-- The reverse.
CREATE TRIGGER memsync_sync_config AFTER INSERT OR UPDATE OR DELETE ON personality_default_configs
    FOR EACH ROW WHEN ({not_copying}) EXECUTE FUNCTION memsync.sync_place('300ms');

-- name: create_config_trigger_on_llm_configs
-- Locks the rows that a deletion of their config will delete.
CREATE TRIGGER memsync_sync_config BEFORE DELETE ON llm_configs
    FOR EACH ROW WHEN ({not_copying}) EXECUTE FUNCTION memsync.sync_lock_new_place();

-- name: create_window_trigger
-- Copies the window of a config to its personalities.
CREATE TRIGGER memsync_sync_window AFTER UPDATE OF context_window_size ON llm_configs
    FOR EACH ROW WHEN ({not_copying}) EXECUTE FUNCTION memsync.sync_window_of_config();

-- name: create_is_default_trigger
-- Makes default configs global.
CREATE TRIGGER memsync_sync_is_default BEFORE INSERT OR UPDATE OF is_default ON llm_configs
    FOR EACH ROW WHEN ({not_copying}) EXECUTE FUNCTION memsync.sync_default_is_global();

-- name: drop_sync_trigger
-- Drops one trigger.
DROP TRIGGER IF EXISTS {trigger} ON {table};
