"""The backfill by copy: it ends as a fill in place does, and carries over all of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from memsync.stores.history.phases import Phase, Stage
from support.cutover import COPY, IN_PLACE, hanging
from support.roles import OWNER_GRANTS, at_url, role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.app import App, NewApp
    from support.postgres import PostgresCluster

# Everything that may be attached to a table.
HUNG: LiteralString = """
    ALTER TABLE conversation_history SET (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_enabled = true, toast.autovacuum_vacuum_threshold = 70);
    ALTER TABLE conversation_history ALTER content SET STORAGE EXTERNAL,
        ALTER content SET COMPRESSION pglz, ALTER channel_id SET STATISTICS 300,
        ALTER user_id SET (n_distinct = -0.5);
    ALTER TABLE conversation_history DROP COLUMN role;
    ALTER TABLE conversation_history ADD COLUMN "the Role" varchar(20) DEFAULT 'user',
        ADD COLUMN answers uuid;
    ALTER TABLE conversation_history
        ADD CONSTRAINT "said something" CHECK (content <> '') NO INHERIT,
        ADD CONSTRAINT answers_fkey FOREIGN KEY (answers) REFERENCES conversation_history (id)
            ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED;
    CREATE INDEX "Odd index" ON conversation_history USING hash (lower(content))
        WITH (fillfactor = 60) WHERE content <> 'x''y';
    CREATE INDEX later_idx ON conversation_history (channel_id varchar_pattern_ops,
        (length(content)) DESC NULLS LAST) INCLUDE (created_at);
    ALTER INDEX later_idx ALTER 2 SET STATISTICS 250;
    ALTER TABLE conversation_history CLUSTER ON later_idx;
    ALTER TABLE conversation_history REPLICA IDENTITY USING INDEX conversation_history_pkey;
    COMMENT ON TABLE conversation_history IS 'what was said: ''all'' of it %%s {{x}}';
    COMMENT ON COLUMN conversation_history.content IS 'the words';
    COMMENT ON INDEX "Odd index" IS 'odd';
    COMMENT ON INDEX conversation_history_pkey IS 'index of the key';
    COMMENT ON CONSTRAINT conversation_history_pkey ON conversation_history IS 'the key';
    COMMENT ON CONSTRAINT "said something" ON conversation_history IS 'no silence';
    COMMENT ON CONSTRAINT answers_fkey ON conversation_history IS 'to itself';
    COMMENT ON CONSTRAINT conversation_history_user_id_fkey ON conversation_history IS 'who';
    COMMENT ON CONSTRAINT pending_memories_conversation_history_id_fkey ON pending_memories
        IS 'from elsewhere';
    CREATE STATISTICS "both" (ndistinct, mcv) ON channel_id, personality_id
        FROM conversation_history;
    ALTER STATISTICS "both" SET STATISTICS 77;
    ALTER STATISTICS "both" OWNER TO {keeper};
    COMMENT ON STATISTICS "both" IS 'together';
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER "a" BEFORE UPDATE OF content ON conversation_history FOR EACH ROW
        WHEN (OLD.content IS DISTINCT FROM NEW.content) EXECUTE FUNCTION nothing('it''s');
    CREATE TRIGGER "off" AFTER INSERT ON conversation_history
        FOR EACH STATEMENT EXECUTE FUNCTION nothing();
    CREATE TRIGGER "always" AFTER TRUNCATE ON conversation_history EXECUTE FUNCTION nothing();
    CREATE CONSTRAINT TRIGGER "checked" AFTER INSERT ON conversation_history
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION nothing();
    ALTER TABLE conversation_history DISABLE TRIGGER "off";
    ALTER TABLE conversation_history ENABLE ALWAYS TRIGGER "always";
    COMMENT ON TRIGGER "a" ON conversation_history IS 'does nothing';
    CREATE POLICY "own" ON conversation_history AS RESTRICTIVE FOR SELECT TO {reader}
        USING (channel_id <> 'secret');
    CREATE POLICY "all" ON conversation_history TO PUBLIC
        USING (EXISTS (SELECT FROM personalities p WHERE p.id = personality_id))
        WITH CHECK (content <> '');
    COMMENT ON POLICY "own" ON conversation_history IS 'no secrets';
    ALTER TABLE conversation_history ENABLE ROW LEVEL SECURITY;
    ALTER TABLE conversation_history FORCE ROW LEVEL SECURITY;
    CREATE PUBLICATION told FOR TABLE conversation_history (id, content) WHERE (id IS NOT NULL);
    CREATE PUBLICATION others FOR TABLE users, conversation_history;
    CREATE TABLE likes (message uuid CONSTRAINT "liked message" REFERENCES conversation_history
        ON DELETE CASCADE, "who" text);
    ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {reader};
    GRANT SELECT, TRIGGER ON conversation_history TO {reader};
    GRANT INSERT ON conversation_history TO {reader} WITH GRANT OPTION;
    GRANT SELECT ON conversation_history TO PUBLIC;
    GRANT UPDATE (content), REFERENCES (id) ON conversation_history TO {reader};
    REVOKE TRUNCATE ON conversation_history FROM CURRENT_USER;
    ALTER TABLE conversation_history OWNER TO {keeper};
"""


@pytest.fixture
def roles(postgres_cluster: PostgresCluster) -> Iterator[dict[str, sql.Identifier]]:
    """Two roles of the server. Request it before the apps: it must outlive their databases."""
    names = {each: f"memsync_{each}_{uuid4().hex[:12]}" for each in ("reader", "keeper")}
    with psycopg.connect(postgres_cluster.url, autocommit=True) as connection:
        for name in names.values():
            connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
        yield {each: sql.Identifier(name) for each, name in names.items()}
        for name in names.values():
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def rows_of(app: App) -> set[tuple[Any, ...]]:
    """Every message, whole."""
    return set(app.query("SELECT h::text FROM conversation_history h"))


def test_a_copy_ends_as_a_fill_in_place(app: App, settled: App) -> None:
    """A copy leaves the catalog and contents of a fill in place; memsync.runs says how and why."""
    assert Stage.CONTRACTED == app.run(options=COPY)

    assert app.expected() == app.personas()
    assert settled.contents() == app.contents()
    assert settled.catalog() == app.catalog()
    assert [("copy: asked for",)] == app.query(
        "SELECT note FROM memsync.runs WHERE phase = 'backfill'"
    )


def test_after_the_backfill_nobody_can_tell(new_app: NewApp) -> None:
    """After the backfill alone, too, catalog and rows are those of a fill in place."""
    copied, filled = new_app(), new_app()
    for app, options in ((copied, COPY), (filled, IN_PLACE)):
        assert Stage.BACKFILLED == app.run(Phase.BACKFILL, options=options)

    assert hanging(filled) == hanging(copied)
    assert filled.catalog() == copied.catalog()
    assert copied.expected() == copied.personas()
    assert copied.verify().ok


def test_everything_that_hangs_on_the_table_comes_along(
    roles: dict[str, sql.Identifier], new_app: NewApp
) -> None:
    """The copy has all that may be attached to a table, even comments and disabled triggers."""
    copied, filled = new_app(), new_app()
    for app, options in ((copied, COPY), (filled, IN_PLACE)):
        with app.connected() as connection:
            connection.execute(sql.SQL(HUNG).format(**roles).as_string().replace("%%", "%"))
            connection.execute("ANALYZE")
        bare = hanging(app)
        assert Stage.BACKFILLED == app.run(Phase.BACKFILL, options=options)
        assert all(bare.values())

    assert hanging(filled) == hanging(copied)
    assert filled.catalog() == copied.catalog()
    assert Stage.CONTRACTED == copied.run() == filled.run()
    assert hanging(filled) == hanging(copied)


def test_back_and_forward_again_by_either_way(new_app: NewApp, settled: App) -> None:
    """Forward by copy, in place and by copy, with the way back between: the ends are the same."""
    app = new_app()
    before = app.catalog()
    for options in (COPY, IN_PLACE, COPY):
        assert Stage.CONTRACTED == app.run(options=options)
        assert settled.catalog() == app.catalog()
        assert settled.contents() == app.contents()
        assert Stage.LEGACY == app.back()
        assert before["indexes"] == app.catalog()["indexes"]
        assert before["constraints"] == app.catalog()["constraints"]


def test_an_owner_who_is_no_superuser_copies(app: App) -> None:
    """Owning the tables and CREATE on the database are enough for a copy too."""
    name = app.query("SELECT current_database()")[0][0]
    with role(app, *OWNER_GRANTS) as url:
        owner = url.partition("//")[2].partition(":")[0]
        with app.connected() as connection:
            connection.execute(
                sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
                    sql.Identifier(name), sql.Identifier(owner)
                )
            )
        assert Stage.CONTRACTED == at_url(app, url).run(options=COPY)
        assert app.expected() == app.personas()


def test_an_app_in_a_schema_of_its_own_is_copied_there(app: App) -> None:
    """The copy of a history outside public ends in the history's own schema."""
    app.do("ALTER SCHEMA public RENAME TO chat")
    name = app.query("SELECT current_database()")[0][0]
    with app.connected() as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET search_path = chat").format(sql.Identifier(name))
        )
    assert Stage.CONTRACTED == app.run(options=COPY)
    assert app.expected() == app.personas()
    assert [("chat",)] == app.query(
        "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = %s",
        "conversation_history",
    )
