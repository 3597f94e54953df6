-- The sync triggers of the history keep user_id and persona_id in sync while both versions of the
-- app run. A row of the old version, which writes only user_id, gets its persona from the current
-- settings. A row of the new version, which writes only persona_id, gets its user from the owner of
-- the persona. The functions run with their owner's privileges, because clients have none in the
-- schema memsync. {search_path} pins where they find the app's tables, so that no caller can
-- substitute others.

-- name: define_persona_override
-- A view of the persona that each user chose for a personality, in the schema as it is now.
CREATE OR REPLACE VIEW memsync.persona_override AS {override};

-- name: define_persona_default
-- A view of each user's default persona, in the schema as it is now.
CREATE OR REPLACE VIEW memsync.persona_default AS {default};

-- fragment: set_default_old
-- Makes a persona the user's default, before the redesign.
UPDATE users SET global_persona_id = created WHERE id = for_user;

-- fragment: set_default_new
-- The same after the redesign.
INSERT INTO user_default_personas (user_id, persona_id, updated_at)
    VALUES (for_user, created, timezone('UTC', clock_timestamp()))
    ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id;

-- fragment: set_default_both
-- The same while the redesign is half done.
UPDATE users SET global_persona_id = created WHERE id = for_user;
    INSERT INTO user_default_personas (user_id, persona_id, updated_at)
    VALUES (for_user, created, timezone('UTC', clock_timestamp()))
    ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id;

-- name: define_create_default_persona
-- Makes a default persona for a user who has none. The user's row is locked first, so that of two
-- sessions one creates the persona and the other finds it.
CREATE OR REPLACE FUNCTION memsync.create_default_persona(for_user uuid)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {search_path} AS $$
DECLARE
    created uuid;
    called text;
BEGIN
    SELECT username INTO called FROM users WHERE id = for_user FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT persona_id INTO created FROM memsync.persona_default WHERE user_id = for_user;
    IF created IS NOT NULL THEN
        RETURN created;
    END IF;
    -- One that a rollback withdrew comes back under its id.
    SELECT persona_id INTO created FROM memsync.created_persona
    WHERE user_id = for_user AND withdrawn;
    created := coalesce(created, gen_random_uuid());
    INSERT INTO personas (id, name, description, content, owner_id, created_at, updated_at)
    VALUES (created, left(called, 244) || '''s Persona', 'Default persona', '', for_user,
            timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp()));
    {set_default};
    INSERT INTO memsync.created_persona (user_id, persona_id) VALUES (for_user, created)
    ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id, withdrawn = false;
    RETURN created;
END $$;

-- name: define_sync_identity
-- Gives a row the id that it lacks. An UPDATE of a row from before the decisions takes what the map
-- decided; a new row takes the current settings. A row whose persona differs from the map's, or
-- belongs to another user, gets an entry in row_archive.
CREATE OR REPLACE FUNCTION memsync.sync_identity()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {search_path} AS $$
DECLARE
    frozen uuid;
    owner uuid;
    standing record;
BEGIN
    -- An INSERT of a row that exists (ON CONFLICT) decides and archives nothing.
    IF TG_OP = 'INSERT' THEN
        SELECT user_id, persona_id INTO standing FROM conversation_history WHERE id = NEW.id;
        IF FOUND THEN
            NEW.user_id := coalesce(NEW.user_id, standing.user_id);
            NEW.persona_id := coalesce(NEW.persona_id, standing.persona_id);
            RETURN NEW;
        END IF;
    END IF;
    IF NEW.user_id IS NULL THEN
        SELECT coalesce(
            (SELECT a.user_id FROM memsync.row_archive a JOIN users u ON u.id = a.user_id
             WHERE a.history_id = NEW.id),
            (SELECT owner_id FROM personas WHERE id = NEW.persona_id))
        INTO NEW.user_id;
    END IF;
    SELECT persona_id INTO frozen FROM memsync.persona_map
    WHERE user_id = NEW.user_id AND personality_id = NEW.personality_id;
    -- An old row that is edited before the fill has started is left to the fill.
    IF NEW.persona_id IS NULL AND TG_OP = 'UPDATE' AND OLD.persona_id IS NULL
       AND NOT EXISTS (SELECT FROM memsync.backfill WHERE fill = 'personas') THEN
        RETURN NEW;
    END IF;
    IF NEW.persona_id IS NULL AND TG_OP = 'UPDATE' THEN
        -- As in the fill, the archive decides, else the map. Only personas that exist count,
        -- because a decision may outlive its persona until the next pass.
        SELECT coalesce(
            (SELECT p.id FROM memsync.row_archive a JOIN personas p ON p.id = a.persona_id
             WHERE a.history_id = NEW.id),
            (SELECT id FROM personas WHERE id = frozen))
        INTO NEW.persona_id;
    END IF;
    IF NEW.persona_id IS NULL THEN
        SELECT coalesce(
            (SELECT persona_id FROM memsync.persona_override
             WHERE user_id = NEW.user_id AND personality_id = NEW.personality_id),
            (SELECT persona_id FROM memsync.persona_default WHERE user_id = NEW.user_id))
        INTO NEW.persona_id;
    END IF;
    IF NEW.persona_id IS NULL
       AND EXISTS (SELECT FROM memsync.backfill
                   WHERE fill = 'personas' AND unresolved = 'create') THEN
        NEW.persona_id := memsync.create_default_persona(NEW.user_id);
    END IF;
    SELECT owner_id INTO owner FROM personas WHERE id = NEW.persona_id;
    IF NEW.persona_id IS NOT NULL
       AND (frozen IS DISTINCT FROM NEW.persona_id OR owner IS DISTINCT FROM NEW.user_id) THEN
        INSERT INTO memsync.row_archive AS a (history_id, user_id, persona_id, reason)
        VALUES (NEW.id, NEW.user_id, NEW.persona_id, 'written-live')
        ON CONFLICT (history_id) DO UPDATE
        SET user_id = excluded.user_id, persona_id = excluded.persona_id,
            reason = CASE WHEN a.persona_id = excluded.persona_id THEN a.reason
                          ELSE excluded.reason END,
            source = CASE WHEN a.persona_id = excluded.persona_id THEN a.source END;
    END IF;
    RETURN NEW;
END $$;

-- name: define_record_user_write
-- Records when a client named user_id in an INSERT, once a second at most: writers read the one
-- page of the sequence, and rarely write it. Contract reads the time.
CREATE OR REPLACE FUNCTION memsync.record_user_write()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    this_second CONSTANT bigint := floor(extract(epoch FROM clock_timestamp()));
BEGIN
    PERFORM FROM memsync.user_id_written_at WHERE is_called AND last_value >= this_second;
    IF NOT FOUND THEN
        PERFORM setval('memsync.user_id_written_at', this_second);
    END IF;
    RETURN NEW;
END $$;

-- name: revoke_sync_functions
-- Postgres checks EXECUTE when a trigger is created, not when it fires. So clients need no grant,
-- and without one they cannot put the functions on a table of their own.
-- https://www.postgresql.org/docs/current/sql-createtrigger.html
REVOKE ALL ON FUNCTION memsync.create_default_persona(uuid), memsync.sync_identity(),
    memsync.record_user_write() FROM PUBLIC;

-- name: create_user_write_trigger
-- Fires before the trigger below, which fills in a missing user_id, because Postgres fires triggers
-- in the order of their names. https://www.postgresql.org/docs/current/trigger-definition.html
CREATE TRIGGER memsync_record_user_write BEFORE INSERT ON conversation_history
    FOR EACH ROW WHEN (NEW.user_id IS NOT NULL) EXECUTE FUNCTION memsync.record_user_write();

-- name: watch_user_writes
-- Starts the watch for clients that still write user_id. Nothing is known of the time before.
SELECT setval('memsync.user_id_written_at', floor(extract(epoch FROM clock_timestamp()))::bigint,
              false);

-- name: create_identity_trigger
-- Fires only for rows that lack one of the two ids, so that complete rows cost nothing.
CREATE TRIGGER memsync_sync_identity BEFORE INSERT OR UPDATE ON conversation_history
    FOR EACH ROW WHEN (NEW.persona_id IS NULL OR NEW.user_id IS NULL)
    EXECUTE FUNCTION memsync.sync_identity();

-- name: drop_identity_trigger
-- Drops the trigger.
DROP TRIGGER IF EXISTS memsync_sync_identity ON conversation_history;

-- name: drop_user_write_trigger
-- Drops the trigger.
DROP TRIGGER IF EXISTS memsync_record_user_write ON conversation_history;

-- name: drop_record_user_write
-- Drops its function.
DROP FUNCTION IF EXISTS memsync.record_user_write();

-- name: drop_sync_identity
-- Drops its function.
DROP FUNCTION IF EXISTS memsync.sync_identity();

-- name: drop_create_default_persona
-- Drops the function that makes default personas.
DROP FUNCTION IF EXISTS memsync.create_default_persona(uuid);

-- name: drop_persona_views
-- Drops the views that the functions read.
DROP VIEW IF EXISTS memsync.persona_override, memsync.persona_default;
