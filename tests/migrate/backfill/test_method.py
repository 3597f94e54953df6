"""The choice of the backfill's method: what forbids a copy, and what disk space it needs."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

import pytest

from memsync import migrate
from memsync.errors import GateClosed
from memsync.migrate import State
from memsync.migrate.backfill import method
from memsync.migrate.backfill.disk import DiskSpace
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from support.cutover import COPY, IN_PLACE
from support.roles import APP_GRANTS, at_url, role

if TYPE_CHECKING:
    from memsync.migrate.options import Method
    from support.app import App

OBSTACLES: dict[str, tuple[LiteralString, str]] = {
    "view": (
        "CREATE VIEW said AS SELECT content FROM conversation_history",
        "it is used by rule _RETURN on view said",
    ),
    "materialised view": (
        "CREATE MATERIALIZED VIEW said AS SELECT content FROM conversation_history",
        "it is used by rule _RETURN on materialized view said",
    ),
    "function of the row type": (
        "CREATE FUNCTION loud(conversation_history) RETURNS text LANGUAGE sql AS 'SELECT $1.role'",
        "it is used by function loud(conversation_history)",
    ),
    "function whose body names it": (
        "CREATE FUNCTION n() RETURNS bigint LANGUAGE sql"
        " BEGIN ATOMIC SELECT count(*) FROM conversation_history; END",
        "it is used by function n()",
    ),
    "column of the row type": (
        "CREATE TABLE kept (row conversation_history[])",
        "it is used by table kept",
    ),
    "rule": (
        "CREATE RULE quiet AS ON DELETE TO conversation_history DO ALSO NOTHING",
        "it has rules",
    ),
    "policy of another table": (
        "CREATE POLICY p ON users USING (EXISTS (SELECT FROM conversation_history))",
        "it is used by policy p on table users",
    ),
    "child": (
        "CREATE TABLE child () INHERITS (conversation_history)",
        "it has parent or child tables",
    ),
    "sequence": (
        "ALTER TABLE conversation_history ADD COLUMN n serial",
        "it is used by sequence conversation_history_n_seq",
    ),
    "identity": (
        "ALTER TABLE conversation_history ADD COLUMN n int GENERATED ALWAYS AS IDENTITY",
        "column n is generated or an identity",
    ),
    "generated column": (
        "ALTER TABLE conversation_history"
        " ADD COLUMN n int GENERATED ALWAYS AS (length(content)) STORED",
        "column n is generated or an identity",
    ),
    "unlogged": (
        "ALTER TABLE pending_memories SET UNLOGGED; ALTER TABLE conversation_history SET UNLOGGED",
        "it is unlogged or temporary",
    ),
    "check that is not valid": (
        "ALTER TABLE conversation_history ADD CONSTRAINT odd CHECK (role <> '') NOT VALID",
        "constraint odd of conversation_history is NOT VALID or not enforced",
    ),
    "key from elsewhere that is not valid": (
        "ALTER TABLE users ADD COLUMN last uuid CONSTRAINT last_key REFERENCES"
        " conversation_history; UPDATE pg_constraint SET convalidated = false"
        " WHERE conname = 'last_key'",
        "constraint last_key of users is NOT VALID or not enforced",
    ),
    "exclusion": (
        "ALTER TABLE conversation_history ADD CONSTRAINT once EXCLUDE (content WITH =)"
        " WHERE (content = '')",
        "constraint once is an exclusion constraint",
    ),
    "another unique index": (
        "CREATE UNIQUE INDEX once ON conversation_history (id, role)",
        "index once is unique besides the primary key",
    ),
    "an index that is INVALID": (
        "CREATE INDEX broken ON conversation_history (role);"
        " UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass",
        "index broken is INVALID",
    ),
    "another primary key": (
        "ALTER TABLE pending_memories"
        " DROP CONSTRAINT pending_memories_conversation_history_id_fkey;"
        " ALTER TABLE conversation_history DROP CONSTRAINT conversation_history_pkey,"
        " ADD PRIMARY KEY (id, created_at)",
        "its primary key is not (id uuid)",
    ),
    "publication of all tables": (
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "publication everything is FOR ALL TABLES",
    ),
    "event trigger": (
        "CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        " CREATE EVENT TRIGGER seen ON ddl_command_end EXECUTE FUNCTION seen()",
        "event trigger seen",
    ),
    "disabled key": (
        "ALTER TABLE pending_memories DISABLE TRIGGER ALL",
        "the triggers of constraint pending_memories_conversation_history_id_fkey are disabled",
    ),
    "member of an extension": (
        "ALTER EXTENSION plpgsql ADD TABLE conversation_history",
        "it is bound to extension plpgsql",
    ),
    "tablespace": (
        "UPDATE pg_class SET reltablespace = 1663"
        " WHERE relname = 'conversation_history_user_id_idx'",
        "it or one of its indexes is in another tablespace",
    ),
}


class Usage(NamedTuple):
    """The result of shutil.disk_usage."""

    total: int
    used: int
    free: int


def chosen(app: App, asked: Method = "auto") -> migrate.Choice:
    """The method that the backfill would use."""
    with Postgres.open(app.url) as postgres, postgres.session() as session:
        return migrate.choose_method(session, Catalog.read(session), asked)


@pytest.fixture
def large(app: App, monkeypatch: pytest.MonkeyPatch) -> App:
    """An app that is not too small for a copy."""
    monkeypatch.setattr(method, "SMALL_BYTES", 0)
    return app


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_a_copy_would_lose_forbids_it(large: App, obstacle: str) -> None:
    """Each obstacle is named: --method copy is refused before any change, auto fills in place."""
    script, reason = OBSTACLES[obstacle]
    with large.connected() as connection:
        connection.execute(script)
    before = large.catalog()

    assert ("in-place", True) == (chosen(large).method, reason in chosen(large).reason)
    with pytest.raises(GateClosed, match="cannot be replaced by a copy") as refused:
        chosen(large, "copy")
    assert reason in str(refused.value.fields["obstacles"])
    # A run may be refused for more than that: child tables are in the way of every method.
    with pytest.raises(GateClosed):
        large.run(options=COPY)
    assert before == large.catalog()


def test_nothing_in_the_way_of_a_usual_app(large: App) -> None:
    """The usual schema can be copied, at every stage before the fill."""
    for phase in (Phase.ISOLATE, Phase.EXPAND):
        large.run(phase)
        assert migrate.Choice("copy", "asked for") == chosen(large, "copy")


def test_another_role_than_the_owner_is_refused(app: App) -> None:
    """A role that does not own the table cannot replace it."""
    with role(app, *APP_GRANTS) as url:
        with pytest.raises(GateClosed) as refused:
            chosen(at_url(app, url), "copy")
        assert "this role is not its owner, postgres" in str(refused.value.fields["obstacles"])


def test_small_tables_are_filled_in_place(app: App) -> None:
    """A table below 64 MiB is filled in place, because a copy would gain nothing."""
    assert "in-place" == chosen(app).method
    assert chosen(app).reason.startswith("table and indexes are small, ")


def test_a_copy_needs_disk_space(large: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy needs 1.4 times the size of table and indexes, and the WAL, free on the disk."""
    [(size,)] = large.query("SELECT pg_total_relation_size('conversation_history')")
    needed = int(size * 1.4) + 2 * size
    for free, expected in ((needed, "copy"), (needed - 1, "in-place")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(0, 0, free))
        assert expected == chosen(large).method
        assert "are free" in chosen(large).reason


def test_of_wal_no_more_is_counted_than_the_server_keeps() -> None:
    """However large the history, its WAL counts as max_wal_size: checkpoints recycle the rest."""
    gib = 2**30
    found = DiskSpace(
        table_bytes=60 * gib, index_bytes=40 * gib, wal_bytes_max=gib, free_bytes=None
    )
    assert (51 * gib, 141 * gib) == (found.in_place_bytes, found.copy_bytes)


def test_plan_does_not_contradict_itself(large: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan's check of the disk and its choice of the method go by the same figures."""
    [(size,)] = large.query("SELECT pg_total_relation_size('conversation_history')")
    seen = set()
    for share in (0, 1, 2.4, 2.6, 3.3, 3.5, 9):
        free = int(share * size)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(0, 0, free))
        plan = large.plan()
        (disk,) = (each for each in plan.checks if each.name == "disk")
        assert plan.method
        assert (disk.state is State.OK) == (plan.method.method == "copy"), share
        seen.add(disk.state)
    assert {State.BLOCKER, State.WARNING, State.OK} == seen


def test_disk_space_that_is_not_known_is_none(large: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server is on another machine, auto fills in place; --method copy still copies."""

    def no_process(*_: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", no_process)
    assert "in-place" == chosen(large).method
    assert "cannot be known from here" in chosen(large).reason
    assert "copy" == chosen(large, "copy").method


def test_auto_copies_where_there_is_disk_space(
    large: App, settled: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """Auto copies, and both the plan and memsync.runs say so and why."""
    assert 14 == large.command("plan", "--json")
    plan: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert "copy" == plan["method"]["method"]
    assert 0 == large.command("plan", "--unresolved", "create")
    assert "copy: a copy needs " in capsys.readouterr().out
    assert Stage.CONTRACTED == large.run()
    assert [True] == [
        note.startswith("copy: a copy needs ")
        for (note,) in large.query("SELECT note FROM memsync.runs WHERE phase = 'backfill'")
    ]
    assert settled.catalog() == large.catalog()
    assert 0 == large.command("plan", "--json")
    assert json.loads(capsys.readouterr().out)["method"] is None


def test_a_fill_that_was_begun_in_place_is_gone_on_with(large: App) -> None:
    """Auto does not throw away half a fill; --method copy does."""
    large.run(Phase.BACKFILL, options=IN_PLACE)
    large.do("UPDATE memsync.backfill SET next_block = 1, end_block = 2")
    large.do("ALTER TABLE conversation_history DISABLE TRIGGER USER")
    large.do("UPDATE conversation_history SET persona_id = NULL WHERE role = 'user'")
    large.do("ALTER TABLE conversation_history ENABLE TRIGGER USER")
    assert migrate.Choice("in-place", "a fill in place is half done") == chosen(large)
    assert Stage.CONTRACTED == large.run(options=COPY)
    assert large.expected() == large.personas()


def test_with_every_persona_there_nothing_is_copied(large: App) -> None:
    """After the backfill no copy is made, because no message is without a persona."""
    large.run(Phase.BACKFILL, options=IN_PLACE)
    assert migrate.Choice("in-place", "no message is without a persona") == chosen(large, "copy")
