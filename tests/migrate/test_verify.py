"""The checks of `migrate verify`: each is ok on a sound app, and fails for a planted fault."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID

import pytest

from memsync.errors import GateClosed
from memsync.migrate import Check, State
from memsync.stores.history.phases import Phase, Stage
from support.prisma import NAMES, folder_with

if TYPE_CHECKING:
    from pathlib import Path

    from support.app import App

OK, FAILED, LATER = State.OK, State.FAILED, State.NOT_APPLICABLE
BUILT = dict.fromkeys(("foreign key", "indexes"), OK)
ROWS = ("no NULL persona_id", "every persona exists", "every row recomputed")
INSERT: LiteralString = (
    "INSERT INTO conversation_history (id, channel_id, personality_id, user_id, role, content)"
    " VALUES (gen_random_uuid(), '1', %s, %s, 'user', 'hello') RETURNING id"
)


def checks(app: App) -> dict[str, Check]:
    """The checks, by name."""
    return {check.name: check for check in app.verify().checks}


def states(app: App) -> dict[str, State]:
    return {name: check.state for name, check in checks(app).items()}


def failures(app: App) -> set[str]:
    """The checks that failed; with any, verify is not ok, tells `problems`, and exits with 1."""
    proof = app.verify()
    found = {check.name for check in proof.checks if check.state is FAILED}
    assert bool(found) == (not proof.ok) == bool(proof.problems)
    assert all(check.next for check in proof.checks if check.state is FAILED)
    assert int(bool(found)) == app.command("verify")
    return found


def mended(app: App, name: str) -> None:
    """Run the SQL that the check names as what to do next."""
    command = (checks(app)[name].next or "").removeprefix("where user_id is right: ")
    with app.connected() as client:
        client.execute(command.encode())


def moved_row(app: App, *, content: LiteralString = "%") -> UUID:
    """Change a message's user_id to another user, as an old app may; its id."""
    row: UUID = app.query(
        "UPDATE conversation_history SET user_id = (SELECT id FROM users u WHERE id <> user_id"
        "  AND global_persona_id IS NOT NULL ORDER BY id LIMIT 1)"
        " WHERE id = (SELECT h.id FROM conversation_history h JOIN personas p"
        "  ON p.id = h.persona_id AND p.owner_id = h.user_id"
        "  WHERE h.content LIKE %s ORDER BY h.id LIMIT 1) RETURNING id",
        content,
    )[0][0]
    return row


def test_the_road(app: App) -> None:
    """At each stage the checks that are due are made; the others are not applicable yet."""
    assert {"no NULL persona_id": FAILED, "every user has a persona": FAILED} == states(app)
    app.run(Phase.EXPAND)
    found = states(app)
    assert {"no NULL persona_id", "every user has a persona"} == failures(app)
    assert {LATER} == {found[name] for name in ("foreign key", "indexes", "counts per user")}
    assert OK is found["identity trigger"]
    app.run(Phase.BACKFILL)
    found = states(app)
    assert set() == failures(app)
    later = ("no user_id column", "persona_id NOT NULL", "already applied", "evidence")
    assert {LATER} == {found.pop(name) for name in later}
    assert {OK} == set(found.values())
    app.run()
    found = states(app)
    assert set() == failures(app)
    assert {
        "every user has a persona",
        "every row recomputed",
        "personas are their users' own",
        "evidence",
    } == {name for name, state in found.items() if state is LATER}


@pytest.mark.parametrize("back", [Phase.BACKFILL, Phase.EXPAND, Phase.ISOLATE])
def test_the_way_back(settled: App, back: Phase) -> None:
    """After each phase that is taken back, only checks fail that a run forward mends."""
    assert 0 == settled.command("rollback", "--to", back.value)
    allowed = set() if back is not Phase.ISOLATE else {"no NULL persona_id"}
    assert allowed == failures(settled)
    settled.run()
    assert set() == failures(settled)


def test_json(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures stand under these keys, with the stage and the checks beside them."""
    app.run(Phase.BACKFILL)
    assert 0 == app.command("verify", "--json")
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (True, "backfilled") == (said["ok"], said["stage"])
    assert not {"phase", "items"} & set(said)
    assert (app.world.manifest.messages, 0, 0, []) == (
        said["rows_total"],
        said["null_persona_ids"],
        said["wrong_persona_ids"],
        said["problems"],
    )
    assert {"name", "state", "found", "next", "phases", "decision"} == set(said["checks"][0])
    assert {"ok", "not-applicable"} == {check["state"] for check in said["checks"]}


def test_text(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """The text has a line for each check, what to do below it, and the verdict last."""
    assert 1 == app.command("verify")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  FAILED  no NULL persona_id ") for line in lines)
    assert any(line.strip() == "do: memsync migrate run --to backfill" for line in lines)
    assert "NOT ok" == lines[-1]


def test_a_user_changed_by_an_old_app_is_named_and_mended(app: App) -> None:
    """Row, user and owner are named, and the command to do next gives the right persona."""
    app.run(Phase.BACKFILL)
    row = moved_row(app)
    found = checks(app)["personas are their users' own"]
    user, owner = app.query(
        "SELECT h.user_id, p.owner_id FROM conversation_history h"
        " JOIN personas p ON p.id = h.persona_id WHERE h.id = %s",
        row,
    )[0]

    assert {"personas are their users' own", "every row recomputed"} <= failures(app)
    assert f"message {row} of user {user} has persona" in found.found
    assert f"of user {owner}" in found.found
    with pytest.raises(GateClosed):
        app.run()
    mended(app, "personas are their users' own")
    # The row joined its pair after the freeze, so counts may differ; its persona is right.
    assert failures(app) <= {"counts per user"}
    assert [(user,)] == app.query(
        "SELECT p.owner_id FROM conversation_history h JOIN personas p ON p.id = h.persona_id"
        " WHERE h.id = %s",
        row,
    )
    assert Stage.CONTRACTED == app.run()


def test_a_message_written_live_whose_user_is_changed_is_found(app: App) -> None:
    """An archived decision of a row does not count once the row has another user."""
    app.run(Phase.EXPAND)
    personality, user = app.query(
        "SELECT h.personality_id, h.user_id FROM conversation_history h"
        " JOIN users u ON u.id = h.user_id WHERE u.global_persona_id IS NOT NULL LIMIT 1"
    )[0]
    app.query(INSERT, personality, user)
    app.run(Phase.BACKFILL)
    assert set() == failures(app)
    row = moved_row(app, content="hello")

    assert {"personas are their users' own", "every row recomputed"} <= failures(app)
    assert f"message {row} has persona" in app.verify().problems[0]
    mended(app, "personas are their users' own")
    assert failures(app) <= {"counts per user"}


def test_counts_per_user_notice_messages_that_came_to_somebody(app: App) -> None:
    """More old messages than at the freeze are reported with both counts; fewer are no fault."""
    app.run(Phase.BACKFILL)
    one, other, personality = app.query(
        "SELECT a.user_id, b.user_id, a.personality_id FROM memsync.persona_map a"
        " JOIN memsync.persona_map b USING (personality_id) WHERE a.user_id < b.user_id"
        " ORDER BY 1, 2, 3 LIMIT 1"
    )[0]
    app.do(
        "DELETE FROM conversation_history WHERE user_id = %s AND personality_id = %s",
        one,
        personality,
    )
    found = checks(app)
    assert set() == failures(app)
    assert ". 1 user has fewer, because some were deleted" in found["counts per user"].found
    assert "the others' were deleted" in found["every decision is used"].found
    then = app.query(
        "SELECT count(*) FROM conversation_history WHERE user_id = %s AND personality_id = %s",
        other,
        personality,
    )[0][0]
    # With the right persona, so that only the count shows it.
    taken = app.do(
        "UPDATE conversation_history h SET user_id = m.user_id, persona_id = m.persona_id"
        " FROM memsync.persona_map m WHERE m.user_id = %s AND m.personality_id = %s"
        " AND h.personality_id = m.personality_id AND h.user_id <> m.user_id",
        other,
        personality,
    )
    assert {"counts per user"} == failures(app)
    expected = f"{other} with personality {personality}: {then} then, {then + taken} now"
    assert expected in checks(app)["counts per user"].found


def test_counts_per_user_after_contract(app: App) -> None:
    """After contract old messages are counted by their personas' owners, newer ones left out."""
    app.run(Phase.BACKFILL)
    before = checks(app)["counts per user"]
    app.run()
    assert before == checks(app)["counts per user"]
    app.do(
        "INSERT INTO conversation_history"
        " (id, channel_id, personality_id, persona_id, role, content)"
        " SELECT gen_random_uuid(), '1', personality_id, persona_id, 'user', 'hello'"
        " FROM conversation_history LIMIT 5"
    )
    assert before == checks(app)["counts per user"]
    app.do(
        "UPDATE personas SET owner_id = (SELECT user_id FROM memsync.persona_map"
        "  ORDER BY user_id LIMIT 1)"
    )
    assert {"counts per user"} == failures(app)


def test_after_finalize_there_is_nothing_to_count_against(settled: App) -> None:
    """After finalize the counts are not applicable, because the archive is gone."""
    assert 0 == settled.command("finalize", "--yes")
    assert LATER is states(settled)["counts per user"]
    assert set() == failures(settled)


KEY: LiteralString = "conversation_history_persona_id_fkey"
BROKEN: list[tuple[str, LiteralString]] = [
    ("foreign key", f"ALTER TABLE conversation_history DROP CONSTRAINT {KEY}"),
    (
        "foreign key",
        f"ALTER TABLE conversation_history DROP CONSTRAINT {KEY}, ADD CONSTRAINT {KEY}"
        " FOREIGN KEY (persona_id) REFERENCES personas (id) NOT VALID",
    ),
    ("indexes", "DROP INDEX conversation_history_persona_id_idx"),
    (
        "indexes",
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'conversation_history_persona_id_idx'::regclass",
    ),
]


@pytest.mark.parametrize(("name", "fault"), BROKEN)
@pytest.mark.parametrize("phase", [Phase.BACKFILL, Phase.CONTRACT])
def test_key_and_indexes(app: App, phase: Phase, name: str, fault: LiteralString) -> None:
    """A missing or invalid key or index fails; the run that the check names mends it."""
    app.run(phase)
    assert set() == failures(app)
    app.do(fault)
    assert {name} == failures(app)
    to = "" if phase is Phase.CONTRACT else " --to backfill"
    assert (
        checks(app)[name].next == f"memsync migrate run{to} --unresolved create --evidence ignore"
    )
    app.run(phase)
    assert set() == failures(app)


@pytest.mark.parametrize(
    "fault",
    [
        "ALTER TABLE conversation_history DISABLE TRIGGER memsync_sync_identity",
        "DROP TRIGGER memsync_sync_identity ON conversation_history",
    ],
)
def test_the_trigger_before_contract(app: App, fault: LiteralString) -> None:
    """A missing or disabled sync trigger fails; the command that the check names mends it."""
    app.run(Phase.BACKFILL)
    app.do(fault)
    assert {"identity trigger"} == failures(app)
    mend = checks(app)["identity trigger"].next or ""
    if mend.startswith("memsync "):
        assert mend == "memsync migrate run --to backfill --unresolved create --evidence ignore"
        app.run(Phase.BACKFILL)
    else:
        mended(app, "identity trigger")
    assert set() == failures(app)


def test_the_trigger_after_contract(settled: App) -> None:
    """A sync trigger that still stands fails, because it would fail every write."""
    settled.do(
        "CREATE TRIGGER memsync_sync_identity BEFORE INSERT ON conversation_history"
        " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    assert {"identity trigger"} == failures(settled)
    mended(settled, "identity trigger")
    assert set() == failures(settled)


def test_not_null_after_contract(settled: App) -> None:
    """A column that may be NULL again fails, and a run mends it."""
    settled.do("ALTER TABLE conversation_history ALTER persona_id DROP NOT NULL")
    assert {"persona_id NOT NULL"} == failures(settled)
    settled.run()
    assert set() == failures(settled)


def test_personas_that_do_not_exist(app: App) -> None:
    """Messages of missing personas are counted, and the command to do next mends them."""
    app.run(Phase.BACKFILL)
    app.do(f"ALTER TABLE conversation_history DROP CONSTRAINT {KEY}")
    app.do(
        "UPDATE conversation_history SET persona_id = gen_random_uuid()"
        " WHERE id = (SELECT min(id::text)::uuid FROM conversation_history)"
    )
    assert {"every persona exists", "foreign key"} <= failures(app)
    assert "1 message has one that does not" == checks(app)["every persona exists"].found
    again = "memsync migrate run --to backfill --unresolved create --evidence ignore"
    assert checks(app)["every persona exists"].next == again
    app.run(Phase.BACKFILL)
    assert set() == failures(app)


def test_personas_that_do_not_exist_after_contract(settled: App) -> None:
    """After contract no user is left to decide by, so the check asks to restore the personas."""
    settled.do(f"ALTER TABLE conversation_history DROP CONSTRAINT {KEY}")
    settled.do(
        "UPDATE conversation_history SET persona_id = gen_random_uuid()"
        " WHERE id = (SELECT min(id::text)::uuid FROM conversation_history)"
    )
    assert {"every persona exists", "foreign key"} == failures(settled)
    assert (checks(settled)["every persona exists"].next or "").startswith("restore those personas")


def test_users_without_a_persona_are_named(app: App) -> None:
    """Users without a persona are named, with the command that creates one for each."""
    app.run(Phase.EXPAND)
    found = checks(app)["every user has a persona"]
    assert found.found.startswith("3 users have neither a choice nor a default: ")
    create = "memsync migrate run --to backfill --unresolved create --evidence ignore"
    assert found.next == f"give them one, or {create}"


def test_already_applied(settled: App, tmp_path: Path) -> None:
    """After contract the check names the command for Prisma, until it was run."""
    found = checks(settled)
    assert (OK, None) == (found["already applied"].state, found["already applied"].next)
    assert State.WARNING == found["prisma"].state
    assert found["prisma"].found.startswith(
        "done, and not recorded as applied: schema_redesign_remove_circular_fks, "
        "add_persona_id_to_conversation_history, finalize_persona_id_migration."
    )
    assert (found["prisma"].next or "").startswith("memsync migrate resolve --all --prisma-dir ")
    assert " of these are there now" in found["counts per user"].found
    assert "fewer" not in found["counts per user"].found
    folder = folder_with(tmp_path, *NAMES)
    assert 0 == settled.command("resolve", "--all", "--prisma-dir", str(folder))
    found = checks(settled)
    assert OK == found["already applied"].state
    assert "prisma" not in found
