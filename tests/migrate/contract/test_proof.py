"""The proof: what it finds, what it does not mistake for a fault, and that contract obeys it."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString
from uuid import UUID

import pytest

from memsync.errors import GateClosed, MemsyncError, StoreBusy
from memsync.model.progress import Kind
from memsync.stores.history.phases import Phase, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from memsync.model.progress import Tell
    from support.app import App

    When = Callable[[str, Callable[[], object]], Tell]
    WhenFilled = Callable[[float, Callable[[], object]], Tell]

INSERT = (
    "INSERT INTO conversation_history (id, channel_id, personality_id, user_id, role, content)"
    " VALUES (gen_random_uuid(), '1', %s, %s, 'user', 'hello') RETURNING persona_id"
)


def several(app: App) -> tuple[UUID, UUID, UUID, UUID]:
    """A user with several personas, a personality, the persona for it, and another persona."""
    user, personality, persona, other = app.query(
        "SELECT h.user_id, h.personality_id, u.global_persona_id, p.id"
        " FROM conversation_history h JOIN users u ON u.id = h.user_id"
        " JOIN personas p ON p.owner_id = u.id AND p.id <> u.global_persona_id"
        " WHERE NOT EXISTS (SELECT FROM user_personality_settings s WHERE s.user_id = u.id"
        " AND s.personality_id = h.personality_id)"
        " ORDER BY h.id, p.id LIMIT 1"
    )[0]
    return user, personality, persona, other


def default_of(app: App, user: UUID, persona: UUID | None) -> None:
    app.do("UPDATE users SET global_persona_id = %s WHERE id = %s", persona, user)


def plant(app: App, user: UUID, personality: UUID, persona: UUID) -> UUID:
    """Give one row of the pair another persona; its id."""
    row: UUID = app.query(
        "UPDATE conversation_history SET persona_id = %s WHERE id ="
        " (SELECT id FROM conversation_history WHERE user_id = %s AND personality_id = %s LIMIT 1)"
        " RETURNING id",
        persona,
        user,
        personality,
    )[0][0]
    return row


@pytest.mark.parametrize("whose", ["of the same user", "of another user"])
def test_a_wrong_persona_is_named_and_closes_the_gate(app: App, whose: str) -> None:
    """One wrong row is found, named with both personas, and contract does not start."""
    app.run(Phase.BACKFILL)
    user, personality, persona, other = several(app)
    if whose == "of another user":
        other = app.query("SELECT id FROM personas WHERE owner_id <> %s LIMIT 1", user)[0][0]
    row = plant(app, user, personality, other)
    catalog = app.catalog()
    with pytest.raises(GateClosed) as refused:
        app.run()

    expected = f"message {row} has persona {other}, the settings say {persona}"
    assert (expected,) == app.verify().problems
    assert 1 == app.verify().wrong_persona_ids
    assert [expected] == refused.value.fields["problems"]
    assert catalog == app.catalog()
    assert 1 == app.command("verify")
    assert 14 == app.command(
        *("run", "--unresolved", "create", "--quiet-minutes", "0", "--backup-confirmed", "test")
    )


def test_a_wrong_persona_after_settings_changed_is_found(app: App) -> None:
    """After settings changed, the proof still compares each row with the frozen decision."""
    app.run(Phase.BACKFILL)
    user, personality, persona, other = several(app)
    default_of(app, user, other)
    row = plant(app, user, personality, other)

    expected = f"message {row} has persona {other}, the settings say {persona}"
    assert (expected,) == app.verify().problems


def test_rows_without_persona_are_counted(app: App) -> None:
    """Before the fill verify is not ok, because every row is without a persona."""
    app.run(Phase.EXPAND)
    proof = app.verify()

    assert (False, app.world.manifest.messages) == (proof.ok, proof.null_persona_ids)


def test_one_row_without_persona_is_filled_by_the_next_run(app: App) -> None:
    """A single row without persona is found by verify, and filled by the next run."""
    app.run(Phase.BACKFILL)
    with app.connected() as connection:
        # Past the sync trigger, as only a fault could do it.
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            "UPDATE conversation_history SET persona_id = NULL"
            " WHERE id = (SELECT min(id::text)::uuid FROM conversation_history)"
        )
    assert (False, 1) == (app.verify().ok, app.verify().null_persona_ids)
    assert Stage.EXPANDED == app.plan().stage
    app.run()
    assert app.expected() == app.personas()


def test_settings_changed_after_the_freeze_keep_the_frozen_decision(app: App) -> None:
    """Old rows keep the frozen persona, new rows get today's, and verify accepts both."""
    app.run(Phase.BACKFILL)
    before = app.expected()
    user, personality, persona, other = several(app)
    default_of(app, user, other)
    assert [(other,)] == app.query(INSERT, personality, user)
    proof = app.verify()
    assert (True, ()) == (proof.ok, proof.problems)
    assert proof.decisions_outdated > 0
    app.run()

    after = app.personas()
    assert before == {row: after[row] for row in before}
    assert [(1,)] == app.query(
        "SELECT count(*) FROM conversation_history WHERE persona_id = %s AND content = 'hello'",
        other,
    )
    assert persona in after.values()


def test_settings_changed_between_expand_and_fill_count_as_of_the_freeze(app: App) -> None:
    """Settings at the start of the fill decide old rows; rows written live keep their persona."""
    app.run(Phase.EXPAND)
    user, personality, persona, other = several(app)
    assert [(persona,)] == app.query(INSERT, personality, user)
    default_of(app, user, other)
    app.run(Phase.BACKFILL)
    default_of(app, user, persona)

    assert (True, ()) == (app.verify().ok, app.verify().problems)
    counts = app.query(
        "SELECT persona_id, content = 'hello', count(*) > 0 FROM conversation_history"
        " WHERE user_id = %s AND personality_id = %s GROUP BY 1, 2",
        user,
        personality,
    )
    assert {(persona, True, True), (other, False, True)} == set(counts)


def test_default_unset_after_the_freeze_needs_no_new_decision(app: App) -> None:
    """A run that stopped after the freeze goes on, though a user lost the default since."""
    app.run(Phase.BACKFILL)
    user, *_ = several(app)
    default_of(app, user, None)
    app.do("DROP INDEX conversation_history_channel_id_personality_id_persona_id_c_idx")
    app.do("UPDATE memsync.alembic_version SET version_num = '0003'")

    assert Stage.CONTRACTED == app.run(unresolved="fail")


def test_both_ids_written_by_an_app_that_knows_both(app: App) -> None:
    """A row written after the freeze with another persona of its user, and both ids, is right."""
    app.run(Phase.BACKFILL)
    user, personality, _, other = several(app)
    app.do(
        "INSERT INTO conversation_history"
        " (id, channel_id, personality_id, user_id, persona_id, role, content)"
        " VALUES (gen_random_uuid(), '1', %s, %s, %s, 'user', 'hello')",
        personality,
        user,
        other,
    )
    assert (True, ()) == (app.verify().ok, app.verify().problems)


BEFORE_THE_KEY = ("isolate", "expand", "backfill", "first batch", "last batch")
every_moment = pytest.mark.parametrize("moment", [*BEFORE_THE_KEY, "contract", Kind.PROOF])


@pytest.fixture
def tell_at(when: When, when_filled: WhenFilled) -> Callable[[str, Callable[[], object]], Tell]:
    """Makes a `tell` that acts once at a moment of a run."""
    shares = {"first batch": 0.0, "last batch": 1.0}
    return lambda moment, action: (
        when_filled(shares[moment], action) if moment in shares else when(moment, action)
    )


@every_moment
@pytest.mark.usefixtures("small_batches")
def test_user_deleted_mid_way(app: App, tell_at: When, moment: str) -> None:
    """A user who is deleted at any moment takes their rows along, and the run goes on."""
    user, *_ = several(app)
    app.run(tell=tell_at(moment, lambda: app.do("DELETE FROM users WHERE id = %s", user)))
    rows = {row.id for row in app.world.history() if row.user_id == user}
    after = app.personas()

    assert rows
    assert {key: value for key, value in app.expected().items() if key not in rows} == after


@every_moment
@pytest.mark.usefixtures("small_batches")
def test_persona_deleted_mid_way(app: App, tell_at: When, moment: str) -> None:
    """A persona deleted at any moment does not stop the run, and no row refers to it afterwards.

    Before the foreign key stands its rows get the user's next persona; later they go with it.
    """
    user, _, persona, other = several(app)

    def forget() -> None:
        default_of(app, user, other)
        app.do("DELETE FROM personas WHERE id = %s", persona)

    assert Stage.CONTRACTED == app.run(tell=tell_at(moment, forget))
    expected = app.expected()
    theirs = {row for row, spoken_by in expected.items() if spoken_by == persona}
    expected = {row: spoken_by for row, spoken_by in expected.items() if row not in theirs}
    assert theirs
    if moment in BEFORE_THE_KEY:
        expected |= dict.fromkeys(theirs, other)
    assert expected == app.personas()


def test_a_message_of_a_deleted_persona_that_a_client_holds(app: App) -> None:
    """A run waits for a message that a client locks, up to its deadline; the next run fills it."""
    user, personality, persona, other = several(app)
    app.run(Phase.EXPAND)
    assert [(persona,)] == app.query(INSERT, personality, user)
    default_of(app, user, other)
    app.do("DELETE FROM personas WHERE id = %s", persona)
    hold: LiteralString = "UPDATE conversation_history SET content = 'held' WHERE persona_id = %s"
    with app.connected(autocommit=False) as client:
        client.execute(hold, (persona,))
        with pytest.raises(StoreBusy, match="conversation_history"):
            app.run(lock_deadline_s=1)
        client.commit()
    app.run()
    assert persona not in app.personas().values()
    assert [(other,)] == app.query(
        "SELECT persona_id FROM conversation_history WHERE content = 'held'"
    )


def test_persona_deleted_when_nothing_else_is_left(app: App) -> None:
    """Rows written live whose persona was deleted can be proven once their user has a new one."""
    user, personality, persona, other = several(app)
    app.run(Phase.EXPAND)
    assert [(persona,)] == app.query(INSERT, personality, user)
    app.do("DELETE FROM personas WHERE owner_id = %s", user)
    with pytest.raises(GateClosed):
        app.run(unresolved="fail")
    app.do(
        "INSERT INTO personas (id, name, content, owner_id, updated_at)"
        " VALUES (%s, 'new', '', %s, now())",
        other,
        user,
    )
    default_of(app, user, other)
    app.run()
    assert {(other,)} == set(
        app.query(
            "SELECT persona_id FROM conversation_history h JOIN personas p ON p.id = persona_id"
            " WHERE p.owner_id = %s",
            user,
        )
    )


def test_message_without_persona_before_contract_closes_the_gate(app: App, when: When) -> None:
    """A message without persona, written between proof and contract, is no internal error."""
    app.run(Phase.BACKFILL)
    personality = app.query("SELECT id FROM personalities LIMIT 1")[0][0]
    stranger = app.query(
        "INSERT INTO users (id, discord_id, username, updated_at)"
        " VALUES (gen_random_uuid(), '1', 'new', now()) RETURNING id"
    )[0][0]
    with pytest.raises(MemsyncError):
        app.run(
            unresolved="fail",
            tell=when("contract", lambda: app.query(INSERT, personality, stranger)),
        )
    assert Stage.CONTRACTED == app.run(unresolved="create")


def test_verify_while_the_app_has_the_column_but_memsync_has_not(app: App) -> None:
    """Verify answers where the app made persona_id itself and memsync has only its schema."""
    app.do("ALTER TABLE conversation_history ADD COLUMN persona_id uuid")
    app.run(Phase.ISOLATE)

    assert app.world.manifest.messages == app.verify().null_persona_ids
