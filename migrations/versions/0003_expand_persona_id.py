"""The new column, and a trigger that keeps it in step while both versions of the app run.

Locks: ACCESS EXCLUSIVE for the column and SHARE ROW EXCLUSIVE for the trigger, each for a moment
and by lock_timeout. The trigger fires only for rows that lack one of the two ids: rows of an app
that knows only users get their persona from today's settings, rows of one that knows only personas
get their user from the persona's owner. A row whose persona is not what the map says for its user,
or is not its user's own, is noted in `row_archive`.
"""

from alembic import context
from psycopg import sql

from memsync.stores.catalog import IDENTITY_TRIGGER, TABLE, Catalog
from memsync.stores.queries import statement

revision = "0003"
down_revision = "0002"

SET_DEFAULT = {
    "default_legacy": ("UPDATE users SET global_persona_id = created WHERE id = for_user"),
    "default_redesigned": (
        "INSERT INTO user_default_personas (user_id, persona_id, updated_at)"
        " VALUES (for_user, created, timezone('UTC', clock_timestamp()))"
        " ON CONFLICT (user_id) DO UPDATE SET persona_id = excluded.persona_id"
    ),
}

# Rule 4 of the resolution. The user's row is locked first, so that of two sessions one creates
# and the other finds.
CREATE_DEFAULT_PERSONA = """
CREATE OR REPLACE FUNCTION memsync.create_default_persona(for_user uuid)
RETURNS uuid LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
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
KEEP_IDENTITY = """
CREATE OR REPLACE FUNCTION memsync.keep_identity()
RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    frozen uuid;
    owner uuid;
BEGIN
    IF NEW.user_id IS NULL THEN
        SELECT owner_id INTO NEW.user_id FROM personas WHERE id = NEW.persona_id;
    END IF;
    SELECT persona_id INTO frozen FROM memsync.persona_map
    WHERE user_id = NEW.user_id AND personality_id = NEW.personality_id;
    IF NEW.persona_id IS NULL AND TG_OP = 'UPDATE' THEN
        NEW.persona_id := frozen;
    END IF;
    IF NEW.persona_id IS NULL THEN
        SELECT coalesce(
            (SELECT persona_id FROM memsync.persona_override
             WHERE user_id = NEW.user_id AND personality_id = NEW.personality_id),
            (SELECT persona_id FROM memsync.persona_default WHERE user_id = NEW.user_id))
        INTO NEW.persona_id;
    END IF;
    IF NEW.persona_id IS NULL
       AND EXISTS (SELECT FROM memsync.backfill WHERE unresolved = 'create') THEN
        NEW.persona_id := memsync.create_default_persona(NEW.user_id);
    END IF;
    SELECT owner_id INTO owner FROM personas WHERE id = NEW.persona_id;
    IF NEW.persona_id IS NOT NULL
       AND (frozen IS DISTINCT FROM NEW.persona_id OR owner IS DISTINCT FROM NEW.user_id) THEN
        INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason)
        VALUES (NEW.id, NEW.user_id, NEW.persona_id, 'written-live')
        ON CONFLICT (history_id) DO UPDATE
        SET user_id = excluded.user_id, persona_id = excluded.persona_id;
    END IF;
    RETURN NEW;
END $$"""


def upgrade() -> None:
    """Add the column and everything that keeps it in step, where user_id still stands."""
    ddl = context.config.attributes["ddl"]
    catalog = Catalog.read(ddl.session, "the migration's session")
    if "persona_id" not in catalog.columns:
        ddl.run("ALTER TABLE conversation_history ADD COLUMN persona_id uuid", table=TABLE)
    if "user_id" not in catalog.columns:
        return
    views = (
        sql.SQL("CREATE OR REPLACE VIEW memsync.persona_{} AS {}").format(
            sql.SQL(hole), sql.SQL(statement(fragment))
        )
        for hole, fragment in catalog.settings.items()
    )
    set_default = sql.SQL(SET_DEFAULT[catalog.settings["default"]])
    ddl.run(
        *views,
        sql.SQL(CREATE_DEFAULT_PERSONA).format(set_default=set_default),
        KEEP_IDENTITY,
        table="users",
    )
    if IDENTITY_TRIGGER not in catalog.triggers:
        ddl.run(
            f"CREATE TRIGGER {IDENTITY_TRIGGER} BEFORE INSERT OR UPDATE ON conversation_history"
            " FOR EACH ROW WHEN (NEW.persona_id IS NULL OR NEW.user_id IS NULL)"
            " EXECUTE FUNCTION memsync.keep_identity()",
            table=TABLE,
        )


def downgrade() -> None:
    """Drop the trigger, then the column."""
    ddl = context.config.attributes["ddl"]
    ddl.run(
        f"DROP TRIGGER IF EXISTS {IDENTITY_TRIGGER} ON conversation_history",
        "ALTER TABLE conversation_history DROP COLUMN IF EXISTS persona_id",
        table=TABLE,
    )
