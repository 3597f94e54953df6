"""Refusals by the scripts for psql: the status says so, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from memsync.errors import StoreUnreachable
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres.locks import LockKey
from support.failing import Crash
from support.moments import cut_before
from support.psql import needs_psql
from support.scripts import (
    ALL_IN_ONE,
    BACK,
    BACKUP,
    STEPS,
    STOPPED,
    VERIFY,
    psql,
    unchanged,
    untouched,
)
from support.settings import conflicting, resolve_all
from support.starts import (
    ADD_COLUMN,
    CREATE_MISSING,
    FILL_BY_DEFAULT_ONLY,
    script,
)

if TYPE_CHECKING:
    from support.app import App

pytestmark = needs_psql


@pytest.mark.slow
def test_a_step_that_comes_too_early_changes_nothing(app: App) -> None:
    """A step that comes too early is refused, even when only the step before it is missing."""
    for done, early in (
        (None, list(Phase)[1:]),
        (Phase.ISOLATE, list(Phase)[2:]),
        (Phase.REDESIGN, list(Phase)[3:]),
        (Phase.EXPAND, list(Phase)[4:]),
    ):
        if done:
            app.run(done)
        before = untouched(app)
        for phase in early:
            status, said = psql(app, STEPS[phase], unresolved="create", backup_confirmed=BACKUP)
            unchanged(app, status, said, before, f"too early for {phase}")


HALF_REDESIGNS = {
    "users' defaults": "CREATE TABLE user_default_personas (user_id uuid PRIMARY KEY,"
    " persona_id uuid NOT NULL, updated_at timestamp(3) NOT NULL)",
    "users' choices": "CREATE TABLE user_personality_configs"
    " (LIKE user_personality_settings INCLUDING ALL)",
    "configs and windows": "ALTER TABLE llm_configs"
    " ADD COLUMN context_window_size integer NOT NULL DEFAULT 20",
    "no ordinary table": "CREATE TABLE heir () INHERITS (conversation_history)",
    "a copy of the history": "CREATE SCHEMA memsync_shadow;"
    " CREATE TABLE memsync_shadow.conversation_history (LIKE conversation_history)",
}


@pytest.mark.parametrize("why", HALF_REDESIGNS)
def test_what_only_memsync_can_go_on_from_is_refused(app: App, why: str) -> None:
    """A redesign half done by the app, or an unusual history, is refused and left to memsync."""
    script(app, HALF_REDESIGNS[why])
    before = untouched(app)
    status, said = psql(app, unresolved="create", backup_confirmed=BACKUP)
    unchanged(app, status, said, before, why, "memsync migrate")


def test_back_refuses_what_is_not_its_own(app: App) -> None:
    """The script for the way back is refused where nothing was begun, or contract was."""
    before = untouched(app)
    status, said = psql(app, BACK)
    unchanged(app, status, said, before, "nothing to take back")
    app.run()
    before = untouched(app)
    status, said = psql(app, BACK)
    unchanged(app, status, said, before, "contract was begun")


@pytest.mark.parametrize("stdin", [False, True])
def test_users_without_a_persona_stop_it_before_it_begins(app: App, stdin: bool) -> None:
    """Users without a persona are named and stop the script, also through stdin."""
    before = untouched(app)
    users = [str(user.id) for user in app.world.cast.users if not user.global_persona_id]
    status, said = psql(app, stdin=stdin, backup_confirmed=BACKUP)
    unchanged(app, status, said, before, *users, "unresolved=create")


@pytest.mark.parametrize("users", [0, 2])
def test_personas_that_nobody_can_be_given_stop_it(app: App, users: int) -> None:
    """A persona without an owner that nobody or several use is named, and stops the script."""
    app.do(
        "UPDATE personas SET owner_id = NULL WHERE id = (SELECT max(id::text)::uuid FROM personas)"
    )
    ((orphan,),) = app.query("SELECT id FROM personas WHERE owner_id IS NULL")
    app.do("UPDATE users SET global_persona_id = NULL WHERE global_persona_id = %s", orphan)
    app.do("UPDATE user_personality_settings SET persona_id = NULL WHERE persona_id = %s", orphan)
    app.do(
        "UPDATE users SET global_persona_id = %s"
        " WHERE id IN (SELECT id FROM users ORDER BY id LIMIT %s)",
        orphan,
        users,
    )
    before = untouched(app)
    status, said = psql(app, unresolved="create", backup_confirmed=BACKUP)
    unchanged(app, status, said, before, str(orphan))


@pytest.mark.parametrize(
    ("choices", "more", "why"),
    [
        ({"unresolved": "guess"}, (), "it must be fail or create"),
        ({"lock_timeout_ms": "soon"}, (), "invalid input syntax"),
        ({"unresolved": "create"}, ("--single-transaction",), "transaction"),
    ],
)
def test_what_it_cannot_do_it_says_first(
    app: App, choices: dict[str, Any], more: tuple[str, ...], why: str
) -> None:
    """A wrong choice, or a run as one transaction, is refused before any change."""
    before = untouched(app)
    status, said = psql(app, ALL_IN_ONE, *more, **choices)
    unchanged(app, status, said, before, why)


def test_another_database_is_refused(new_database: Callable[[], str], app: App) -> None:
    """A database without the app's tables is refused, and nothing is made in it."""
    other = type(app)(new_database(), app.world)
    before = other.catalog()
    status, said = psql(other, unresolved="create")
    assert (STOPPED, before) == (status, other.catalog())
    assert "conversation_history" in said


def test_contract_waits_for_a_backup(app: App) -> None:
    """Without a confirmed backup all is done but contract, and the status says so."""
    status, said = psql(app, stdin=True, unresolved="create", backup_confirmed=" ")
    assert STOPPED == status
    assert "backup" in said
    assert Stage.BACKFILLED == app.plan().stage
    assert app.verify().ok
    assert 0 == psql(app, backup_confirmed=BACKUP)[0]
    assert Stage.CONTRACTED == app.plan().stage


def test_rows_filled_by_another_rule_stop_contract(app: App) -> None:
    """Rows filled by another rule are counted and stop contract; user_id is still there."""
    script(app, CREATE_MISSING, ADD_COLUMN, FILL_BY_DEFAULT_ONLY)
    status, said = psql(app, backup_confirmed=BACKUP)
    wrong = app.verify().wrong_persona_ids
    assert STOPPED == status
    assert f"{wrong} messages have a wrong persona" in said
    assert app.query("SELECT user_id FROM conversation_history LIMIT 1")
    status, said = psql(app, VERIFY)
    assert (STOPPED, True) == (status, f"{wrong} messages have a wrong persona" in said)


def test_verify_says_what_stands(app: App) -> None:
    """The script for verify fails before persona_id exists, and succeeds from backfill on."""
    assert STOPPED == psql(app, VERIFY)[0]
    app.run(Phase.BACKFILL)
    status, said = psql(app, VERIFY)
    assert (0, True) == (status, "user_id is still there" in said)
    app.run()
    catalog = app.catalog()
    status, said = psql(app, VERIFY)
    assert (0, True) == (status, "| finished" in said)
    assert catalog == app.catalog()


def test_a_script_does_not_start_beside_memsync(app: App) -> None:
    """While memsync holds the lock, the script does nothing."""
    before = untouched(app)
    with app.connected() as other:
        other.execute("SELECT pg_advisory_lock(%s)", (LockKey.MIGRATE.value,))
        status, said = psql(app, unresolved="create")
        unchanged(app, status, said, before, f"pid {other.info.backend_pid}")


def test_a_rollback_that_was_cut_short_is_finished_first(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old columns that are there again, and not filled yet, are not copied over what is kept."""
    resolve_all(app)
    conflicting(app)
    app.do(
        "UPDATE personalities SET llm_config_id = NULL, context_window_size = 55"
        " WHERE id = (SELECT max(id::text)::uuid FROM personalities)"
    )
    app.run()
    with monkeypatch.context() as patched:
        cut_before(patched, "FUNCTION memsync.is_waited_for")
        with pytest.raises((Crash, StoreUnreachable)):
            app.back()
    before = settings_of(app)
    status, said = psql(app, unresolved="create", backup_confirmed=BACKUP)
    assert STOPPED == status
    assert "a rollback of contract was cut short" in said
    assert before == settings_of(app)
    app.run()
    assert before == settings_of(app)


def settings_of(app: App) -> list[object]:
    """The windows of the configs, and what is kept of columns that were dropped."""
    return [
        app.query("SELECT id, context_window_size FROM llm_configs ORDER BY id"),
        app.query("SELECT * FROM memsync.column_archive ORDER BY column_name, row_id"),
    ]
