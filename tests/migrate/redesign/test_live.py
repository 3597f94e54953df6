"""The redesign under clients of both versions of the app that write settings all the while."""

from __future__ import annotations

import random
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from memsync import migrate
from memsync.model.progress import Kind, Tell, silent
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from support.live import Background
from support.settings import in_step, new_persona, resolve_all

if TYPE_CHECKING:
    from uuid import UUID

    from memsync.model.progress import Progress
    from support.app import App

# A deadlock's victim is found after the server's deadlock_timeout, a second.
STATEMENT_MAX_S = 2.5

Statements = tuple[tuple[LiteralString, tuple[str, ...]], ...]

OLD: Statements = (
    ("UPDATE users SET global_persona_id = %s WHERE id = %s", ("persona", "user")),
    ("UPDATE users SET global_persona_id = NULL, username = 'x' WHERE id = %s", ("user",)),
    ("UPDATE users SET username = 'y' WHERE id = %s", ("user",)),
    (
        "UPDATE personalities SET llm_config_id = %s WHERE id = %s",
        ("config", "personality"),
    ),
    (
        "UPDATE personalities SET context_window_size = 10 * %s WHERE id = %s",
        ("size", "personality"),
    ),
    (
        "INSERT INTO user_personality_settings"
        " (id, user_id, personality_id, persona_id, updated_at)"
        " VALUES (gen_random_uuid(), %s, %s, %s, now())"
        " ON CONFLICT (user_id, personality_id) DO UPDATE SET persona_id = excluded.persona_id",
        ("user", "personality", "persona"),
    ),
)
# These create and delete personas and configs in use; those of other statements stay.
BRIEF: Statements = (
    (
        "WITH p AS (INSERT INTO personas (id, name, content, owner_id, updated_at)"
        " VALUES (gen_random_uuid(), 'brief', '', %s, now()) RETURNING id)"
        " UPDATE users SET global_persona_id = (SELECT id FROM p) WHERE id = %s",
        ("user", "user"),
    ),
    (
        "WITH c AS (INSERT INTO llm_configs (id, name, model, updated_at)"
        " VALUES (gen_random_uuid(), 'brief', 'm', now()) RETURNING id)"
        " UPDATE personalities SET llm_config_id = (SELECT id FROM c) WHERE id = %s",
        ("personality",),
    ),
    ("DELETE FROM personas WHERE name = 'brief'", ()),
    ("DELETE FROM llm_configs WHERE name LIKE 'brief%%'", ()),
)
NEW: Statements = (
    (
        "INSERT INTO user_default_personas (user_id, persona_id, updated_at)"
        " VALUES (%s, %s, now()) ON CONFLICT (user_id) DO UPDATE"
        " SET persona_id = excluded.persona_id, updated_at = excluded.updated_at",
        ("user", "persona"),
    ),
    (
        "UPDATE user_default_personas SET persona_id = %s, updated_at = now() WHERE user_id = %s",
        ("persona", "user"),
    ),
    ("DELETE FROM user_default_personas WHERE user_id = %s", ("user",)),
    (
        "INSERT INTO personality_default_configs (personality_id, llm_config_id, updated_at)"
        " VALUES (%s, %s, now()) ON CONFLICT (personality_id) DO UPDATE"
        " SET llm_config_id = excluded.llm_config_id, updated_at = excluded.updated_at",
        ("personality", "config"),
    ),
    ("UPDATE llm_configs SET context_window_size = 10 * %s WHERE id = %s", ("size", "config")),
    (
        "INSERT INTO user_personality_configs (id, user_id, personality_id, persona_id, updated_at)"
        " VALUES (gen_random_uuid(), %s, %s, %s, now())"
        " ON CONFLICT (user_id, personality_id) DO UPDATE SET persona_id = excluded.persona_id",
        ("user", "personality", "persona"),
    ),
)


@dataclass
class Chooser(Background):
    """One version of the app, changing settings of a few people until it is told to stop."""

    app: App
    seed: str
    statements: Statements
    few: dict[str, list[Any]]
    errors: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def _live(self) -> None:
        chance = random.Random(self.seed)
        with self.app.connected() as connection:
            while not self._stop.wait(0.001):
                text, names = chance.choice(self.statements)
                params = [chance.choice(self.few[name]) for name in names]
                started = time.monotonic()
                try:
                    connection.execute(text, params)
                except psycopg.Error as error:
                    self.errors.append(f"{error} in {text}")
                self.waits.append(time.monotonic() - started)


def few_of(app: App, people: int) -> dict[str, list[Any]]:
    """A few users, personas, personalities and configs, so that clients meet."""
    users: list[UUID] = [user.id for user in app.world.cast.users[:people]]
    return {
        "user": users,
        "persona": [new_persona(app, users[0]) for _ in range(3)],
        "personality": [each.id for each in app.world.cast.personalities[:people]],
        "config": [row[0] for row in app.query("SELECT id FROM llm_configs ORDER BY id LIMIT 3")],
        "size": [2, 3, 4],
    }


def choosers(app: App, seed: int, people: int) -> tuple[list[Chooser], list[Chooser]]:
    few = few_of(app, people)
    old = [
        Chooser(app, f"{seed}/old/0", OLD, few),
        Chooser(app, f"{seed}/old/1", (*OLD, *BRIEF), few),
    ]
    return old, [Chooser(app, f"{seed}/new/{n}", NEW, few) for n in range(2)]


def assert_unharmed(clients: list[Chooser], capsys: pytest.CaptureFixture[str]) -> None:
    waits = sorted(wait for client in clients for wait in client.waits)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(waits)} statements; longest waits "
            f"{', '.join(f'{wait * 1000:.0f}' for wait in waits[-5:])} ms\n"
        )
    assert [] == [error for client in clients for error in client.errors]
    assert waits[-1] < STATEMENT_MAX_S


@pytest.mark.parametrize("people", [1, 3])
def test_both_versions_may_write_the_same_setting_at_the_same_moment(
    app: App, seed: int, people: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four clients on the same few rows meet no deadlock, and old and new tables end in step."""
    app.run(Phase.REDESIGN)
    old, new = choosers(app, seed, people)
    try:
        for client in (*old, *new):
            client.start()
        threading.Event().wait(2.5)
    finally:
        for client in (*old, *new):
            client.stop()
    assert_unharmed([*old, *new], capsys)
    assert in_step(app)


def starting(phase: Phase, clients: list[Chooser]) -> Tell:
    """A `tell` that starts these clients when the phase begins."""

    def tell(step: Progress) -> None:
        if step.kind is Kind.PHASE and step.what == phase:
            for client in clients:
                client.start()

    return tell


def stopping(
    phase: Phase, clients: list[Chooser], then: Tell = silent, *, kind: Kind = Kind.PHASE
) -> Tell:
    """A `tell` that stops these clients when the phase begins, or is taken back."""

    def tell(step: Progress) -> None:
        then(step)
        if step.kind is kind and step.what == phase:
            for client in clients:
                client.stop()

    return tell


def test_settings_are_written_all_the_way_there_and_back(
    app: App, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clients of both versions write settings without error, to contract and on the way back."""
    resolve_all(app)
    old, new = choosers(app, seed, 3)
    returned = [Chooser(app, f"{seed}/again/{n}", OLD, old[0].few) for n in range(2)]
    back = stopping(Phase.REDESIGN, new, kind=Kind.PHASE_BACK)
    try:
        for client in old:
            client.start()
        assert Stage.CONTRACTED == app.run(
            tell=stopping(Phase.CONTRACT, old, starting(Phase.EXPAND, new))
        )
        with Postgres.open(app.url) as postgres:
            migrate.rollback(postgres, app.settings(), to=Phase.BACKFILL, tell=back)
            for client in returned:
                client.start()
            migrate.rollback(postgres, app.settings(), to=None, tell=back)
    finally:
        for client in (*old, *new, *returned):
            client.stop()
    assert_unharmed([*old, *new, *returned], capsys)
