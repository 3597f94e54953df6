"""A redesign cut short anywhere, forward or back, ends the same after the next run or rollback."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from memsync import migrate
from memsync.errors import StoreUnreachable
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Postgres
from support.app import App
from support.failing import Crash
from support.moments import until
from support.settings import conflicting, new_persona, resolve_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.app import NewApp
    from support.postgres import NewDatabase

TABLES: LiteralString = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"""


LOCKED: LiteralString = """
    SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND d.datname = current_database()"""


def cut_at(patched: pytest.MonkeyPatch, point: int | None, moment: str) -> Callable[[], int]:
    """Crash the connection at the statement of this number; the result counts those sent so far."""
    execute, count = psycopg.Cursor.execute, 0

    def counted(cursor: psycopg.Cursor[Any], *args: Any, **kwargs: Any) -> psycopg.Cursor[Any]:
        nonlocal count
        if "lock_timeout" in str(args[0]):
            # Not counted, because how often it is set depends on the time that passes.
            return execute(cursor, *args, **kwargs)
        count += 1
        if count == point and moment == "after":
            execute(cursor, *args, **kwargs)
        if point is not None and count >= point:
            cursor.connection.close()
            raise Crash
        return execute(cursor, *args, **kwargs)

    patched.setattr(psycopg.Cursor, "execute", counted)
    return lambda: count


@dataclass(frozen=True)
class Leg:
    """A part of the way: the phase where it starts, and the phase and direction asked for."""

    start: Phase | None
    to: Phase | None
    forward: bool

    def go(self, app: App) -> None:
        with Postgres.open(app.url) as postgres:
            if self.forward:
                assert self.to
                options = migrate.RunOptions(
                    to=self.to,
                    orphan_owners="quarantine",
                    quiet_minutes=0,
                    backup_confirmed="tests",
                    evidence="ignore",
                )
                migrate.run(postgres, app.settings(), options)
            else:
                migrate.rollback(postgres, app.settings(), to=self.to)


LEGS = {
    "redesign": Leg(Phase.ISOLATE, Phase.REDESIGN, forward=True),
    "redesign back": Leg(Phase.REDESIGN, Phase.ISOLATE, forward=False),
    "contract": Leg(Phase.BACKFILL, Phase.CONTRACT, forward=True),
    "contract back": Leg(Phase.CONTRACT, Phase.BACKFILL, forward=False),
}


def state(app: App) -> tuple[object, ...]:
    """The catalog, and every row of the app's tables."""
    rows = {
        name: app.query("SELECT to_jsonb(t)::text FROM " + name + " t ORDER BY 1")  # noqa: S608
        for (name,) in app.query(TABLES)
    }
    return app.catalog(), rows


def is_free(app: App) -> bool:
    """Whether no run holds the lock."""
    return not app.query(LOCKED)


@pytest.fixture
def prepared(new_app: NewApp) -> App:
    """An app with forks to make, and orphans to give an owner and to quarantine."""
    app = new_app()
    resolve_all(app)
    conflicting(app)
    user = app.world.cast.users[1].id
    derived, _ = new_persona(app, None), new_persona(app, None)
    app.do("UPDATE users SET global_persona_id = %s WHERE id = %s", derived, user)
    return app


def cut_through(
    prepared: App,
    new_database: NewDatabase,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    points: Callable[[int], list[tuple[int, str]]],
) -> None:
    """Crash the leg at each point, finish it or turn round, and compare with undisturbed ends."""
    leg = LEGS[name]
    turn = next(each for each in LEGS.values() if each.start is leg.to and each.to is leg.start)

    def copy(of: App) -> App:
        return App(new_database(template=psycopg.conninfo.conninfo_to_dict(of.url)["dbname"]),
                   of.world)  # fmt: skip

    at_start = copy(prepared)
    if leg.start:
        Leg(None, leg.start, forward=True).go(at_start)
    if not leg.forward:
        # One round first, because the way back adds columns at the ends of their tables.
        leg.go(at_start)
        turn.go(at_start)
    before = copy(at_start)
    done = copy(at_start)
    with monkeypatch.context() as patched:
        sent = cut_at(patched, None, "")
        leg.go(done)
        total = sent()
    turned = copy(done)
    turn.go(turned)
    ends = {True: state(done), False: state(turned)}
    for point, moment in points(total):
        for onward in (True, False):
            app = copy(before)
            with monkeypatch.context() as patched:
                sent = cut_at(patched, point, moment)
                with contextlib.suppress(Crash, StoreUnreachable):
                    leg.go(app)
                    # It was not cut, because it had fewer statements than the first: the batches
                    # of a fill are as large as the server is quick.
                    assert sent() < point
            until(partial(is_free, app), "the session that was cut goes")
            (leg if onward else turn).go(app)
            if state(app) != ends[onward]:
                for mine, theirs in zip(state(app), ends[onward], strict=True):
                    assert theirs == mine, (name, point, moment, onward)


@pytest.mark.parametrize("name", LEGS)
def test_cut_short_it_ends_the_same(
    prepared: App,
    new_database: NewDatabase,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    name: str,
) -> None:
    """A leg that is cut at a seeded statement, then finished or turned round, ends the same."""
    chance = random.Random(f"{seed}/{name}")
    cut_through(
        prepared, new_database, monkeypatch, name,
        lambda total: [(chance.randint(2, total), chance.choice(("before", "after")))],
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", LEGS)
def test_cut_short_at_every_statement_it_ends_the_same(
    prepared: App, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The same holds at every statement."""
    cut_through(
        prepared, new_database, monkeypatch, name,
        lambda total: [(point, "after") for point in range(2, total + 1)],
    )  # fmt: skip
