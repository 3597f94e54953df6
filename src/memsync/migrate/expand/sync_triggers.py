"""The bridge: what keeps user_id and persona_id in step while both versions of the app run.

A trigger that fires only for rows that lack one of the two ids: rows of an app that knows only
users get their persona from today's settings, rows of one that knows only personas get their user
from the persona's owner. A row whose persona is not what the map says for its user, or is not its
user's own, is noted in `row_archive`. Another trigger notes when a client last named user_id in an
INSERT: contract asks for it. Both stand from expand to contract, and on the way back.
"""

from memsync.stores.history.catalog import IDENTITY_TRIGGER, TABLE, WATCH_TRIGGER, Catalog
from memsync.stores.postgres import sql
from memsync.stores.postgres.ddl import OnlineDdl
from memsync.stores.postgres.statements import statement

_SET_DEFAULT = {
    "default_both": (
        "UPDATE users SET global_persona_id = created WHERE id = for_user;"
        " INSERT INTO user_default_personas (user_id, persona_id, updated_at)"
        " VALUES (for_user, created, timezone('UTC', clock_timestamp()))"
        " ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id"
    ),
    "default_legacy": ("UPDATE users SET global_persona_id = created WHERE id = for_user"),
    "default_redesigned": (
        "INSERT INTO user_default_personas (user_id, persona_id, updated_at)"
        " VALUES (for_user, created, timezone('UTC', clock_timestamp()))"
        " ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id"
    ),
}

# Rule 4 of the resolution. The user's row is locked first, so that of two sessions one creates
# and the other finds.
_CREATE_DEFAULT_PERSONA = """
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
    created := gen_random_uuid();
    INSERT INTO personas (id, name, description, content, owner_id, created_at, updated_at)
    VALUES (created, left(called, 244) || '''s Persona', 'Default persona', '', for_user,
            timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp()));
    {set_default};
    INSERT INTO memsync.created_persona (user_id, persona_id) VALUES (for_user, created)
    ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id;
    RETURN created;
END $$"""

# An UPDATE of a row from before the freeze takes the map's decision; a new row is of today.
_KEEP_IDENTITY = """
CREATE OR REPLACE FUNCTION memsync.sync_identity()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {search_path} AS $$
DECLARE
    frozen uuid;
    owner uuid;
    standing record;
BEGIN
    -- An INSERT that will meet its own row (ON CONFLICT) decides and notes nothing.
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
    -- An old row that is edited before anything was decided is left to the fill.
    IF NEW.persona_id IS NULL AND TG_OP = 'UPDATE' AND OLD.persona_id IS NULL
       AND NOT EXISTS (SELECT FROM memsync.backfill WHERE fill = 'personas') THEN
        RETURN NEW;
    END IF;
    IF NEW.persona_id IS NULL AND TG_OP = 'UPDATE' THEN
        -- As the fill has it: the archive knows the row itself, else the map decides. Only
        -- personas that exist: a decision may outlive its persona until the next pass.
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
END $$"""


# At most once a second: writers read the sequence's one page, and hardly ever write it.
_HEAR_USERS = """
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
END $$"""


def build(ddl: OnlineDdl, catalog: Catalog) -> None:
    """Build the bridge, or make the one that stands as it is today.

    Locks: SHARE ROW EXCLUSIVE on the history, for a moment.
    """
    views = (
        sql.SQL("CREATE OR REPLACE VIEW memsync.persona_{} AS {}").format(
            sql.SQL(hole), sql.SQL(statement(fragment))
        )
        for hole, fragment in catalog.settings.items()
        if hole in {"override", "default"}
    )
    set_default = sql.SQL(_SET_DEFAULT[catalog.settings["default"]])
    path = pinned_search_path(ddl)
    ddl.run(
        *views,
        sql.SQL(_CREATE_DEFAULT_PERSONA).format(set_default=set_default, search_path=path),
        sql.SQL(_KEEP_IDENTITY).format(search_path=path),
        _HEAR_USERS,
        # Firing a trigger asks for no right; hanging the function on a table of one's own does.
        "REVOKE ALL ON FUNCTION memsync.create_default_persona(uuid), memsync.sync_identity(),"
        " memsync.record_user_write() FROM PUBLIC",
        table="users",
    )
    if WATCH_TRIGGER not in catalog.triggers:
        ddl.run(
            f"CREATE TRIGGER {WATCH_TRIGGER} BEFORE INSERT ON conversation_history"
            " FOR EACH ROW WHEN (NEW.user_id IS NOT NULL)"
            " EXECUTE FUNCTION memsync.record_user_write()",
            # Under the lock of the statement above: no writer slips in between.
            statement("watch_user_writes"),
            table=TABLE,
        )
    if IDENTITY_TRIGGER not in catalog.triggers:
        ddl.run(
            f"CREATE TRIGGER {IDENTITY_TRIGGER} BEFORE INSERT OR UPDATE ON conversation_history"
            " FOR EACH ROW WHEN (NEW.persona_id IS NULL OR NEW.user_id IS NULL)"
            " EXECUTE FUNCTION memsync.sync_identity()",
            table=TABLE,
        )


def pinned_search_path(ddl: OnlineDdl) -> sql.Composed:
    """Where the functions find the app's tables, whoever calls them.

    They run with their owner's rights, because clients have none in our schema. So no client may
    slip them a table of its own: temporary ones come last, and nothing follows the caller.
    """
    schemas = ddl.session.row("search_path").schemas
    return sql.SQL(", ").join([*map(sql.Identifier, schemas), sql.SQL("pg_temp")])


def remove(ddl: OnlineDdl, *with_it: str) -> None:
    """Take the bridge down; `with_it` are statements of the same transaction.

    Between trigger and column, rows of either version of the app would be refused; and a bridge
    half taken down would be nobody's to clear away.
    """
    ddl.run(
        f"DROP TRIGGER IF EXISTS {IDENTITY_TRIGGER} ON conversation_history",
        f"DROP TRIGGER IF EXISTS {WATCH_TRIGGER} ON conversation_history",
        *with_it,
        "DROP FUNCTION IF EXISTS memsync.record_user_write()",
        "DROP FUNCTION IF EXISTS memsync.sync_identity()",
        "DROP FUNCTION IF EXISTS memsync.create_default_persona(uuid)",
        "DROP VIEW IF EXISTS memsync.persona_override, memsync.persona_default",
        table=TABLE,
    )
