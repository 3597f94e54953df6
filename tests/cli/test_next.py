"""Types every command that memsync prints, stage by stage, and sees that it does what was said."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from memsync.stores.postgres import Postgres
from memsync.stores.postgres.locks import LockKey, exclusive
from support.cli import THROUGH, Ran, on, run
from support.moments import later
from support.typed import next_of, parse, printed

TO_BACKFILL = ("migrate", "run", "--to", "backfill")
DECIDED = ("--unresolved", "create", "--evidence", "none-expected")
"""Every decision that this app, with an empty store, asks for."""
STEPS_MAX = 12
FAULTS: list[LiteralString] = [
    "SET session_replication_role = replica;"
    "UPDATE conversation_history SET persona_id = NULL"
    " WHERE id = (SELECT id FROM conversation_history LIMIT 1)",
    "ALTER TABLE conversation_history DROP CONSTRAINT conversation_history_persona_id_fkey",
    "DROP INDEX conversation_history_persona_id_idx",
    "DROP TRIGGER memsync_sync_identity ON conversation_history",
]


def execute(url: str, text: LiteralString, *params: object) -> list[tuple[object, ...]]:
    """Run a statement as a client of the app; its rows, if it has any."""
    with psycopg.connect(url, autocommit=True) as client:
        found = client.execute(text, params or None)
        return found.fetchall() if found.description else []


class Operator:
    """Types commands on one database, and checks every command that comes back."""

    def __init__(self, url: str) -> None:
        self.url = url

    def types(self, *command: str) -> Ran:
        ran = on(self.url, ":memory:", *command)
        for each in printed(ran):
            parse(each)
        return ran

    def status(self) -> dict[str, object]:
        return self.types("migrate", "status", "--json").json()


@pytest.fixture
def operator(legacy_app: str) -> Operator:
    """An operator before a legacy app."""
    return Operator(legacy_app)


def test_following_next_ends_at_a_finalized_database(operator: Operator) -> None:
    """Typing each `next:`, and waiting where a gate says how long, ends the migration."""
    typed: list[str] = []
    then = next_of(operator.types("migrate", "status"))
    while then:
        assert len(typed) < STEPS_MAX, typed
        typed.append(" ".join(then))
        ran = operator.types(*then)
        assert ran.status == 0 or (then[-1], ran.status) == ("plan", 14), (then, ran.err)
        now = operator.status()
        for gate in now["gates"]:  # type: ignore[attr-defined]
            later(operator.url, gate["opens_in_s"] or 0)
        then = next_of(ran) or shlex.split(str(now["next"] or ""))[1:]

    assert [
        "migrate plan",
        "migrate run --to backfill --unresolved create --evidence none-expected",
        "migrate backup",
        "migrate run --unresolved create --evidence none-expected",
        "migrate finalize",
        "migrate finalize --yes",
    ] == typed
    assert [("done",)] == execute(
        operator.url, "SELECT outcome FROM memsync.runs WHERE verb = 'finalize'"
    )
    assert 0 == operator.types("migrate", "verify").status


def test_every_command_printed_at_every_stage_parses(operator: Operator) -> None:
    """Plan, status and verify at each stage, forward and back, print commands that parse."""
    stages = [
        (),
        ("migrate", "run"),
        ("migrate", "run", "--evidence", "none-expected"),
        ("migrate", "run", "--to", "isolate", *DECIDED),
        ("migrate", "run", "--to", "redesign"),
        ("migrate", "run", "--to", "expand"),
        ("migrate", "finalize"),
        TO_BACKFILL,
        ("migrate", "run"),
        ("migrate", "run", "--quiet-minutes", "0"),
        ("migrate", "backup"),
        THROUGH,
        ("migrate", "finalize"),
        *(("migrate", "rollback", "--to", each) for each in ("backfill", "expand", "start")),
        ("migrate", "pause"),
    ]
    seen, decided = set(), " ".join(DECIDED)
    for command in stages:
        if command:
            seen |= {" ".join(each) for each in printed(operator.types(*command))}
        for look in ("plan", "status", "verify"):
            seen |= {" ".join(each) for each in printed(operator.types("migrate", look))}

    assert {
        "migrate run --to backfill --unresolved create",
        "migrate run --to backfill --evidence none-expected",
        f"migrate run --to backfill {decided}",
        f"migrate run {decided}",
        f"migrate run {decided} --quiet-minutes 0",
        f"migrate run {decided} --quiet-minutes 0 --backup-confirmed TEXT",
        "migrate backup",
        "migrate verify",
        "migrate status",
        "migrate finalize",
        "migrate finalize --yes",
    } <= seen


def test_what_to_wait_for_stands_before_next(operator: Operator) -> None:
    """From backfill on `first:` says what comes before the command, as long as something does."""
    assert "first:" not in operator.types("migrate", "plan").out
    reached = operator.types(*TO_BACKFILL, *DECIDED)
    backup = operator.types("migrate", "backup")

    for ran in (reached, backup, operator.types("migrate", "status")):
        *_, first, _ = ran.out.splitlines()
        assert first.startswith("first: let the version of the app that works by persona_id take ")
        assert "nobody has used user_id for 10 min, in 0:" in first
    assert str(operator.status()["first"]).startswith("let the version of the app")
    later(operator.url, 601)
    assert "first:" not in operator.types("migrate", "status").out
    contracted = operator.types("migrate", "run")
    *_, first, _ = contracted.out.splitlines()
    assert first.startswith("first: wait until nobody wants to go back")


def test_next_asks_of_contract_what_the_last_run_asked(operator: Operator) -> None:
    """A run that left quiet out, or named a backup, is what backup and status name."""
    operator.types(*TO_BACKFILL, *DECIDED)
    assert 14 == operator.types("migrate", "run", "--quiet-minutes", "0").status
    then = next_of(backup := operator.types("migrate", "backup"))

    assert ["migrate", "run", *DECIDED, "--quiet-minutes", "0"] == then
    assert "first:" not in backup.out
    assert 14 == operator.types("migrate", "run", "--backup-confirmed", "mine").status
    assert ["migrate", "run", *DECIDED, "--backup-confirmed", "mine"] == next_of(
        operator.types("migrate", "status")
    )
    assert 14 == operator.types("migrate", "run").status  # the default is not what another asked
    assert 0 == operator.types(*then).status


def test_a_store_that_was_not_migrated_has_no_way_back_to_end(database: str) -> None:
    """On a store of init, finalize removes nothing, promises nothing and names no command."""
    assert 0 == on(database, ":memory:", "init").status
    for yes in ((), ("--yes",)):
        ran = on(database, ":memory:", "migrate", "finalize", *yes)
        told = on(database, ":memory:", "migrate", "finalize", *yes, "--json").json()
        assert 0 == ran.status
        assert ran.out.startswith("nothing to remove: there is no way back from contract here.")
        assert (False, False) == (told["finalized"], told["way_back"])
    with psycopg.connect(database) as client:
        assert (0,) == client.execute("SELECT count(*) FROM memsync.runs").fetchone()


@pytest.mark.parametrize("fault", FAULTS)
def test_the_mend_of_each_failure_of_verify_mends_it(
    operator: Operator, fault: LiteralString
) -> None:
    """Verify's `do:` goes no further than backfill, names the decisions, and mends the failure."""
    assert 0 == operator.types(*TO_BACKFILL, *DECIDED).status
    execute(operator.url, fault)
    broken = operator.types("migrate", "verify")
    mends = {" ".join(each) for each in printed(broken)}

    assert 1 == broken.status
    assert {" ".join((*TO_BACKFILL, *DECIDED))} == mends
    for each in mends:
        assert 0 == operator.types(*each.split()).status
    assert 0 == operator.types("migrate", "verify").status
    assert "backfilled" == operator.status()["stage"]


def test_a_decision_holds_for_the_runs_after_it(operator: Operator) -> None:
    """A run without --unresolved keeps what the one before decided; --unresolved fail ends it."""
    decided = "SELECT unresolved FROM memsync.backfill WHERE fill = 'personas'"
    operator.types(*TO_BACKFILL, *DECIDED)
    for more, kept in (((), "create"), (("--unresolved", "fail"), "fail"), ((), "fail")):
        assert 0 == operator.types(*TO_BACKFILL, *more).status
        assert [(kept,)] == execute(operator.url, decided)


def test_everything_taken_back_takes_the_decisions_back(operator: Operator) -> None:
    """After a rollback to the start the next run asks again."""
    assert 0 == operator.types("migrate", "run", "--to", "isolate", *DECIDED).status
    assert 0 == operator.types("migrate", "rollback", "--to", "start").status
    assert 14 == operator.types(*TO_BACKFILL).status


def test_plan_is_14_where_run_would_be_refused(operator: Operator) -> None:
    """An open decision, a view on user_id, unread memories: blockers, in text and JSON alike."""

    def planned(*options: str, qdrant: str = ":memory:") -> tuple[int, set[str], bool]:
        text = on(operator.url, qdrant, "migrate", "plan", *options)
        told = on(operator.url, qdrant, "migrate", "plan", *options, "--json")
        found = json.loads(told.out)
        assert text.status == told.status
        assert found["ok"] == ("NOT clear" not in text.out)
        stops = {each["name"] for each in found["checks"] if each["state"] == "blocker"}
        return told.status, stops, found["ok"]

    assert (14, {"users", "evidence"}, False) == planned()
    assert 14 == operator.types(*TO_BACKFILL).status
    assert (14, {"evidence"}, False) == planned(*DECIDED[:2])
    assert (14, {"users"}, False) == planned(*DECIDED[2:])
    assert (0, set(), True) == planned(*DECIDED)
    nowhere = "http://127.0.0.1:1"
    assert (14, {"evidence"}, False) == planned(*DECIDED, qdrant=nowhere)
    assert (0, set(), True) == planned(*DECIDED[:2], "--evidence", "ignore", qdrant=nowhere)
    execute(operator.url, "CREATE VIEW uses AS SELECT user_id FROM conversation_history")
    assert (14, {"user_id"}, False) == planned(*DECIDED)
    plan = operator.types("migrate", "plan", *DECIDED)
    assert [*TO_BACKFILL, *DECIDED] == next_of(plan)
    assert 0 == operator.types(*next_of(plan) or ()).status
    execute(operator.url, "DROP VIEW uses")


def test_a_store_that_nobody_named_is_named_first(legacy_app: str) -> None:
    """Plan leads back to itself until the store is named, and then to a run that works."""

    def typed(*command: str, qdrant: tuple[str, ...] = ()) -> Ran:
        ran = run("--postgres-url", legacy_app, *qdrant, *command)
        for each in printed(ran):
            parse(each)
        return ran

    unnamed = typed("migrate", "plan")
    assert (14, ["migrate", "plan"]) == (unnamed.status, next_of(unnamed))
    assert "do: set --qdrant-url, MEMSYNC_QDRANT_URL or qdrant_url in memsync.toml; " in unnamed.out
    ignoring = [*TO_BACKFILL, "--evidence", "ignore"]
    assert ignoring in printed(unnamed)
    assert ignoring in printed(typed(*TO_BACKFILL))
    named = ("--qdrant-url", ":memory:")
    then = next_of(typed("migrate", "plan", qdrant=named)) or []
    assert 0 == typed(*then, qdrant=named).status


def test_closed_gates_are_told_and_close_the_plan(operator: Operator) -> None:
    """Status says what contract waits for, how long, and what opens it; plan ends with 14."""
    operator.types(*TO_BACKFILL, *DECIDED)
    gates = {each["name"]: each for each in operator.status()["gates"]}  # type: ignore[attr-defined]
    text = operator.types("migrate", "status").out

    assert {"proof": "not asked", "quiet": "closed", "backup": "closed"} == {
        name: gate["state"] for name, gate in gates.items()
    }
    assert 500 < gates["quiet"]["opens_in_s"] <= 600
    assert "user_id may have been in use" in gates["quiet"]["found"]
    assert "wait" == gates["quiet"]["next"]
    assert "[opens in 0:" in text  # 0:10:00 within the first half second
    assert "do: memsync migrate backup" in text
    assert 14 == operator.types("migrate", "plan").status
    operator.types("migrate", "backup")
    later(operator.url, 601)
    assert 0 == operator.types("migrate", "plan").status
    assert {"open", "not asked"} == {
        each["state"]
        for each in operator.status()["gates"]  # type: ignore[attr-defined]
    }


def test_another_sessions_run_is_told_by_all(operator: Operator) -> None:
    """While another session holds the lock, plan, status and verify say so, and next is nothing."""
    operator.types(*TO_BACKFILL, *DECIDED)
    execute(operator.url, FAULTS[0])
    with Postgres.open(operator.url) as postgres, exclusive(postgres, LockKey.MIGRATE, "x") as held:
        pid = held.connection.info.backend_pid
        plan = operator.types("migrate", "plan", "--json")
        now = operator.status()
        proof = operator.types("migrate", "verify", "--json")
        text = operator.types("migrate", "verify").out.splitlines()

    found = json.loads(plan.out)
    assert (pid, None) == (found["run"]["pid"], found["next"])
    assert (pid, None) == (now["run"]["pid"], now["next"])  # type: ignore[index]
    assert (3, []) == (proof.status, proof.json()["problems"])
    assert not {"failed"} & {each["state"] for each in proof.json()["checks"]}
    assert f"not finished: a run is running (pid {pid}); nothing wrong so far" == text[-1]


def test_commands_name_the_settings_file(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each printed command names the file of --config, in text, JSON and errors."""
    file = tmp_path / "my settings.toml"
    file.write_text(f"postgres_url = {json.dumps(operator.url)}\n")
    monkeypatch.setenv("MEMSYNC_QDRANT_URL", ":memory:")
    status = on_file(file, "migrate", "status")
    assert [["--config", str(file), "migrate", "plan"]] == printed(status)
    told = on_file(file, "migrate", "status", "--json").json()
    assert f"memsync --config '{file}' migrate plan" == told["next"]
    refused = on_file(file, *TO_BACKFILL)
    assert 14 == refused.status
    assert {str(file)} == {each[1] for each in printed(refused)}
    refused = on_file(file, *TO_BACKFILL, *DECIDED[2:])
    assert {str(file)} == {each[1] for each in printed(refused)}
    assert 0 == on_file(file, *(printed(refused)[-1][2:])).status


def on_file(file: Path, *command: str) -> Ran:
    """Run a command with the settings of a file."""
    return run("--config", str(file), *command)


@pytest.fixture(autouse=True)
def no_dumps_left() -> Iterator[None]:
    """Remove the dumps of `backup`, which stand in the working folder of the test."""
    yield
    for each in Path().glob("*.dump"):
        each.unlink()
