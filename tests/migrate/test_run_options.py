"""The command line turns the flags of `migrate run` into RunOptions."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import pytest

from memsync import migrate
from memsync.cli.app import main
from memsync.stores.history.phases import Phase, Stage

if TYPE_CHECKING:
    from support.app import App

OWNER = "assign:8c8a4d7e-0000-4000-8000-000000000001"
FLAGS: dict[str, str] = {
    "--to": "backfill",
    "--unresolved": "create",
    "--orphan-owners": OWNER,
    "--existing": "keep",
    "--evidence": "ignore",
    "--method": "copy",
    "--quiet-minutes": "2.5",
    "--backup-confirmed": "the dump of last night",
    "--backup-max-age-hours": "7.5",
    "--max-lag-ms": "300",
    "--max-rate": "1.5",
    "--workers": "3",
}
CHOSEN = migrate.RunOptions(
    to=Phase.BACKFILL,
    unresolved="create",
    orphan_owners=OWNER,
    existing="keep",
    evidence="ignore",
    method="copy",
    quiet_minutes=2.5,
    backup_confirmed="the dump of last night",
    backup_max_age_hours=7.5,
    max_lag_ms=300,
    max_rate_mb_s=1.5,
    workers=3,
)


def captured(monkeypatch: pytest.MonkeyPatch) -> list[migrate.RunOptions]:
    """Collect the options of all runs from now on; nothing is migrated."""
    given: list[migrate.RunOptions] = []

    def run(_postgres: object, _settings: object, options: migrate.RunOptions, **_: Any) -> Stage:
        given.append(options)
        return Stage.LEGACY

    monkeypatch.setattr(migrate, "run", run)
    return given


def test_every_flag_reaches_the_run(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every flag reaches the run; no value of the test is the default."""
    default = migrate.RunOptions()
    same = [
        field.name
        for field in fields(CHOSEN)
        if getattr(CHOSEN, field.name) == getattr(default, field.name)
    ]
    assert [] == same
    given = captured(monkeypatch)

    assert 0 == app.command("run", *(word for flag in FLAGS.items() for word in flag))
    assert [CHOSEN] == given


def test_without_flags_a_run_is_the_librarys(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line has no defaults of its own."""
    given = captured(monkeypatch)

    assert 0 == main(["--postgres-url", app.url, "migrate", "run"])
    assert [migrate.RunOptions()] == given


def test_run_ends_at_the_phase_that_is_asked_for(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--to backfill` fills every row and leaves user_id where it is."""
    assert 0 == app.command("run", "--to", "backfill", "--unresolved", "create")

    lines = capsys.readouterr().out.splitlines()
    assert ("stage: backfilled", "next: memsync migrate backup") == (lines[0], lines[-1])
    assert Stage.BACKFILLED == app.status().stage
    assert app.expected() == app.personas()
    assert [] == app.query("SELECT FROM conversation_history WHERE user_id IS NULL")


def test_a_printed_command_names_a_decision_against_the_record(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """A `fail` that is given after a recorded `create` is in the command to type again."""
    app.run(Phase.ISOLATE, unresolved="create")
    assert 14 == app.command("run", "--unresolved", "fail")
    said = capsys.readouterr()
    again = "memsync migrate run --unresolved fail --evidence ignore` again"
    assert again in " ".join((said.out + said.err).split())


@pytest.mark.parametrize("given", ["fail", None])
def test_only_a_decision_that_was_given_is_printed(given: Literal["fail"] | None) -> None:
    """An inherited `create` is printed, an inherited `fail` is what holds without it."""
    options = migrate.RunOptions(unresolved=given)
    shown = "memsync migrate run --unresolved"
    assert f"{shown} {given or 'create'}" == options.settled({"unresolved": "create"}).command()
    evidence = migrate.RunOptions(evidence="prefer").settled({"evidence": "ignore"})
    assert "memsync migrate run --evidence prefer" == evidence.command()
    usual = migrate.RunOptions().settled({"unresolved": "fail", "evidence": "prefer"})
    assert "memsync migrate run" == usual.command()
    # The record tells every decision, and what goes on with it names those that matter.
    assert migrate.RunOptions() == migrate.RunOptions.of(usual.for_record())


@pytest.mark.parametrize("number", [1234567.0, 300.0, 0.1, 1.5, 123456.789, 1e-7])
def test_a_printed_number_is_the_one_that_was_given(number: float) -> None:
    """Every digit of a limit is printed, and no `.0`."""
    *_, shown = migrate.RunOptions(max_lag_ms=number).command().split()
    assert (number, False) == (float(shown), shown.endswith(".0"))
