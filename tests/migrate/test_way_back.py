"""The way back: from every phase, contract included, with what was written since."""

from __future__ import annotations

import random
import signal
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from memsync import migrate
from memsync.errors import GateClosed, MemsyncError, StoreBusy, StoreUnreachable
from memsync.model.progress import Kind, Progress
from memsync.stores.history.phases import REACHED, Phase, Stage
from memsync.stores.postgres import Postgres, Session
from support.app import App
from support.failing import Crash
from support.kills import migrator, of_the_app
from support.moments import cut_before
from support.starts import changed_since

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.app import Catalog, NewApp
    from support.postgres import NewDatabase

    Eventually = Callable[[Callable[[], bool], str], None]

USERS = "SELECT id, user_id FROM conversation_history"


def users(app: App) -> dict[UUID, UUID]:
    """The user of every message."""
    return dict(app.query(USERS))


def said_since(app: App) -> dict[UUID, tuple[UUID, UUID]]:
    """Insert a message of every persona after contract; by message, its persona and owner."""
    said = {}
    for persona, owner in app.query("SELECT id, owner_id FROM personas"):
        message = uuid4()
        said[message] = (persona, owner)
        app.do(
            "INSERT INTO conversation_history"
            " (id, channel_id, personality_id, persona_id, role, content)"
            " VALUES (%s, 'since', (SELECT min(id::text)::uuid FROM personalities), %s,"
            " 'user', 'said after contract')",
            message,
            persona,
        )
    return said


def test_every_phase_is_taken_back_to_what_it_was(app: App) -> None:
    """After each step back, the app's schema is that of the same stage on the way forward."""
    was: dict[Phase | None, Catalog] = {None: of_the_app(app.catalog())}
    for phase in Phase:
        app.run(phase)
        was[phase] = of_the_app(app.catalog())
    for to in (Phase.BACKFILL, Phase.EXPAND, Phase.REDESIGN, Phase.ISOLATE, None):
        stage = app.back(to)
        assert (REACHED[to] if to else Stage.LEGACY) == stage
        assert was[to] == of_the_app(app.catalog()), to


def test_every_message_gets_its_user_again(app: App) -> None:
    """Old messages, newer ones and those of another user's persona all get their user again."""
    before = users(app)
    lent, owner = app.query("SELECT id, owner_id FROM personas ORDER BY id LIMIT 1")[0]
    other = app.query("SELECT id FROM users WHERE id <> %s ORDER BY id LIMIT 1", owner)[0][0]
    app.do("UPDATE users SET global_persona_id = %s WHERE id = %s", lent, other)
    app.run()
    said = said_since(app)

    assert Stage.LEGACY == app.back()

    assert before | {each: owner for each, (_, owner) in said.items()} == users(app)


def test_forward_back_forward_is_forward(app: App) -> None:
    """Forward, back and forward again, the catalog and every message's persona are the same."""
    app.run()
    said = said_since(app)
    catalog, personas = app.catalog(), app.personas()

    app.back()
    # Settings that change meanwhile decide new messages, not these.
    app.do("UPDATE users SET global_persona_id = NULL")
    app.run(unresolved="create")

    assert catalog == app.catalog()
    assert personas == app.personas()
    assert {each: persona for each, (persona, _) in said.items()}.items() <= personas.items()


def test_both_versions_of_the_app_write_on_the_way_back(app: App) -> None:
    """After a rollback to backfill, a row by user and a row by persona get both ids."""
    app.run()
    app.back(Phase.BACKFILL)
    persona, owner = app.query(
        "SELECT p.id, p.owner_id FROM personas p JOIN users u ON u.global_persona_id = p.id LIMIT 1"
    )[0]
    for column, value in (("user_id", owner), ("persona_id", persona)):
        app.do(
            f"INSERT INTO conversation_history (id, channel_id, personality_id, {column}, role,"  # noqa: S608
            " content) VALUES (gen_random_uuid(), 'both',"
            " (SELECT id FROM personalities LIMIT 1), %s, 'user', 'x')",
            value,
        )
    rows = app.query(
        "SELECT user_id, count(persona_id) FROM conversation_history"
        " WHERE channel_id = 'both' GROUP BY user_id"
    )
    assert [(owner, 2)] == rows
    assert app.verify().ok


@pytest.mark.parametrize("method", ["in-place", "copy"])
def test_what_is_written_after_all_was_taken_back_goes_by_the_settings_of_its_day(
    app: App, method: str
) -> None:
    """Old decisions hold for old messages, which keep their personas, and for no newer ones."""
    app.run(Phase.BACKFILL)
    personas = app.personas()
    app.back()
    user, personality, before, now = changed_since(app)
    app.run(Phase.BACKFILL, options={"method": method})
    of_pair = (
        "SELECT DISTINCT persona_id FROM conversation_history"
        " WHERE user_id = %s AND personality_id = %s AND channel_id <> 'since'"
    )

    assert [(now,)] == app.query(
        "SELECT persona_id FROM conversation_history WHERE channel_id = 'since'"
    )
    assert [(before,)] == app.query(of_pair, user, personality)
    assert personas.items() <= app.personas().items()
    assert app.verify().ok
    # And so they stay, back and forward once more.
    again = app.personas()
    app.back()
    app.run()
    assert again == app.personas()


def test_who_has_no_persona_any_more_is_told(app: App) -> None:
    """A user who lost the default and wrote since is treated as any user without a persona."""
    app.run(Phase.BACKFILL)
    app.back()
    user, _, _, _ = changed_since(app)
    app.do("UPDATE users SET global_persona_id = NULL WHERE id = %s", user)
    with pytest.raises(GateClosed, match=str(user)):
        app.run(Phase.BACKFILL, unresolved="fail")
    app.run(Phase.BACKFILL)
    created = "SELECT persona_id FROM memsync.created_persona WHERE user_id = %s"
    assert app.query(created, user) == app.query(
        "SELECT persona_id FROM conversation_history WHERE channel_id = 'since'"
    )
    assert app.verify().ok


def test_half_way_back_either_way_is_open(app: App, settled: App) -> None:
    """A way back that stops in the middle can be finished, or turned into forward again."""
    app.run()

    def half_way_back() -> None:
        def interrupt(step: Progress) -> None:
            if step.kind is Kind.FILL_USERS:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            app.back(tell=interrupt)
        assert ("conversation_history", "user_id", "uuid", False, None) in app.catalog()["columns"]

    half_way_back()
    assert app.run() == Stage.CONTRACTED
    assert settled.catalog() == app.catalog()

    half_way_back()
    assert Stage.LEGACY == app.back()
    assert None not in users(app).values()


def test_a_contract_killed_anywhere_is_taken_back_whole(
    new_app: NewApp, new_database: NewDatabase, eventually: Eventually, seed: int
) -> None:
    """From wherever contract was cut short, a rollback to the start restores the legacy schema."""
    backfilled = new_app()
    legacy, spoken = of_the_app(backfilled.catalog()), users(backfilled)
    backfilled.run(Phase.BACKFILL)
    [(template,)] = backfilled.query("SELECT current_database()")

    def copied() -> App:
        return App(new_database(template=template), backfilled.world)

    status, out = doomed(copied())
    assert 0 == status, out
    last = int(out)
    chance = random.Random(f"{seed}/contract")
    for point in sorted(chance.sample(range(last // 2, last + 1), 3)):
        app = copied()
        status, told = doomed(app, point, "after")
        assert -signal.SIGKILL == status, (point, told)
        free_again(eventually, app.back, Stage.LEGACY)
        assert (legacy, spoken) == (of_the_app(app.catalog()), users(app)), point


def test_a_validation_that_fails_leaves_no_check_behind(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A contract that fails leaves no CHECK that would refuse the live app's messages."""
    app.run(Phase.BACKFILL)
    lost = uuid4()
    app.do(
        "INSERT INTO users (id, discord_id, username, updated_at) VALUES (%s, 'n', 'n', now())",
        lost,
    )
    writes = (
        "INSERT INTO conversation_history (id, channel_id, personality_id, user_id, role, content)"
        " VALUES (gen_random_uuid(), 'x', (SELECT id FROM personalities LIMIT 1), %s, 'user', 'x')"
    )

    verify_rows = Session.rows

    def rows(session: Session, name: str, /, **params: object) -> list[object]:
        found = verify_rows(session, name, **params)
        if name == "verify_rows":
            app.do(writes, lost)
        return found

    monkeypatch.setattr(Session, "rows", rows)
    with pytest.raises(GateClosed):
        app.run(unresolved="fail")
    monkeypatch.undo()
    app.do(writes, lost)
    assert "memsync_persona_id_present" not in {
        name for _, name, *_ in app.catalog()["constraints"]
    }


def test_finalize_killed_after_its_work_has_ended_the_way_back(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive is removed in the transaction that records it as removed."""
    app.run()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with Postgres.open(app.url) as postgres:
        run = Session.run
        monkeypatch.setattr(
            Session,
            "run",
            lambda self, name, /, **params: (
                killed() if name == "end_record" else run(self, name, **params)
            ),
        )
        with pytest.raises(KeyboardInterrupt):
            migrate.finalize(postgres, app.settings())
    monkeypatch.undo()
    with pytest.raises(GateClosed):
        app.back()


def test_an_archived_persona_survives_an_edit_on_the_way_forward(app: App) -> None:
    """A row that the old app edits after the way back still gets its archived persona."""
    app.run()
    said = said_since(app)
    app.back()
    app.run(Phase.EXPAND)
    app.do("UPDATE conversation_history SET content = 'edited' WHERE channel_id = 'since'")
    app.run()
    expected = {each: persona for each, (persona, _) in said.items()}
    assert expected == {each: app.personas()[each] for each in said}


def test_a_retried_insert_decides_nothing(app: App) -> None:
    """INSERT … ON CONFLICT DO NOTHING of a row that stands leaves no trace, filled or not."""
    app.run(Phase.EXPAND)
    row = app.query(
        "SELECT h.id, h.channel_id, h.personality_id, h.user_id, h.role, h.content"
        " FROM conversation_history h JOIN users u ON u.id = h.user_id"
        " JOIN personas p ON p.owner_id = u.id GROUP BY h.id HAVING count(*) > 1 LIMIT 1"
    )[0]
    retry = (
        "INSERT INTO conversation_history (id, channel_id, personality_id, user_id, role, content)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING"
    )
    expected = app.world.resolved(row[3], row[2])
    app.run(Phase.BACKFILL)
    app.do(
        "UPDATE users SET global_persona_id = (SELECT id FROM personas WHERE owner_id = users.id"
        " AND id <> users.global_persona_id LIMIT 1) WHERE id = %s",
        row[3],
    )
    app.do(retry, *row)
    assert [(0,)] == app.query(
        "SELECT count(*) FROM memsync.row_archive WHERE history_id = %s", row[0]
    )
    assert app.run() == Stage.CONTRACTED
    assert expected == app.personas()[row[0]]


def doomed(app: App, *arguments: object) -> tuple[int, str]:
    """A migrator that kills itself: its exit status, and what it printed."""
    return migrator(app, *map(str, arguments))


def free_again(eventually: Eventually, work: Callable[[], Stage], to: Stage) -> None:
    """Do the work once the killed client's session lets go of the lock."""

    def done() -> bool:
        try:
            return work() == to
        except StoreBusy:
            return False

    eventually(done, "the killed session goes")


def test_a_run_killed_at_its_very_end_has_a_way_back(
    new_app: NewApp, eventually: Eventually, seed: int
) -> None:
    """A run killed at its very end can be taken back, whether or not its end was recorded."""
    status, out = doomed(new_app())
    assert 0 == status, out
    chance = random.Random(f"{seed}/end")
    for point in sorted(chance.sample(range(int(out) - 7, int(out) + 1), 3)):
        app = new_app()
        spoken = users(app)
        status, told = doomed(app, point, "after")
        assert -signal.SIGKILL == status, (point, told)
        free_again(eventually, app.run, Stage.CONTRACTED)
        assert Stage.LEGACY == app.back(), point
        assert spoken == users(app), point


def test_finalize_says_what_goes_and_ends_the_way_back(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --yes nothing happens; with it the archive is gone and rollback refuses."""
    assert 14 == app.command("finalize")
    app.run()
    assert 0 == app.command("finalize")
    told = capsys.readouterr().out
    assert " 0 " not in told
    *_, sentence, first, then = told.splitlines()
    assert sentence.startswith("`memsync migrate rollback --to backfill` needs them")
    assert first.startswith("first: wait until nobody wants to go back")
    assert first.endswith("cannot be undone")
    assert "next: memsync migrate finalize --yes" == then
    assert 0 < app.query("SELECT count(*) FROM memsync.persona_map")[0][0]

    assert 0 == app.command("finalize", "--yes")
    before = app.catalog()
    assert 14 == app.command("rollback", "--to", "start")
    assert before == app.catalog()


def test_contract_by_other_hands_has_no_way_back(app: App) -> None:
    """A contract done by hand has no way back, because memsync archived nothing."""
    app.run(Phase.BACKFILL)
    app.do("DROP TRIGGER memsync_sync_identity ON conversation_history")
    app.do("DROP TRIGGER memsync_record_user_write ON conversation_history")
    app.do("ALTER TABLE conversation_history DROP COLUMN user_id")
    app.do("ALTER TABLE conversation_history ALTER persona_id SET NOT NULL")
    app.run()
    with pytest.raises(GateClosed, match="not done by memsync"):
        app.back()


def test_the_record_of_runs_tells_who_did_what(app: App) -> None:
    """The record has every phase, forward and back, with its outcome and its filled rows.

    Isolate left nothing to take back: its index was not built.
    """
    with pytest.raises(MemsyncError):
        app.run(unresolved="fail")
    app.run()
    app.back()
    rows = len(users(app))
    told = app.query(
        "SELECT verb, phase, outcome, rows_filled FROM memsync.runs"
        " WHERE who = session_user AND ended_at >= started_at ORDER BY id"
    )
    assert [
        ("run", "isolate", "done", 0),
        ("run", "redesign", "done", 0),
        ("run", "expand", "done", 0),
        ("run", "backfill", "done", rows),
        ("run", "contract", "done", 0),
        ("rollback", "contract", "done", rows),
        ("rollback", "backfill", "done", 0),
        ("rollback", "expand", "done", 0),
        ("rollback", "redesign", "done", 0),
    ] == told


@pytest.mark.parametrize(
    "words",
    [
        "CREATE OR REPLACE VIEW memsync.persona_override",
        "ADD COLUMN persona_id",
        "CREATE TRIGGER memsync_record_user_write",
        "CREATE TRIGGER memsync_sync_identity",
    ],
)
def test_an_expand_that_was_cut_short_is_taken_back(
    app: App, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """Column, triggers, functions and views all go, and the redesign can go after them."""
    before = of_the_app(app.catalog())
    app.run(Phase.REDESIGN)
    with monkeypatch.context() as patched:
        cut_before(patched, words)
        with pytest.raises((Crash, StoreUnreachable)):
            app.run(Phase.EXPAND)
    assert Stage.LEGACY == app.back()
    assert before == of_the_app(app.catalog())
    assert [] == app.query("SELECT FROM pg_views WHERE schemaname = 'memsync'")


def test_an_expand_whose_trigger_was_dropped_by_hand_is_taken_back(app: App) -> None:
    """The catalog no longer shows a finished expand, but the rest of it goes all the same."""
    before = of_the_app(app.catalog())
    app.run(Phase.EXPAND)
    app.do("DROP TRIGGER memsync_sync_identity ON conversation_history")
    assert Stage.REDESIGNED == app.plan().stage
    assert Stage.LEGACY == app.back()
    assert before == of_the_app(app.catalog())
