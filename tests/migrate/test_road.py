"""The undisturbed migration: what each phase leaves and reports, and its proof."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from memsync.errors import GateClosed, StoreBusy
from memsync.migrate import rollback
from memsync.model.progress import Kind, Progress
from memsync.stores.history.catalog import USER_INDEX
from memsync.stores.history.phases import REACHED, Phase, Stage
from memsync.stores.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Callable

    from memsync.model.progress import Tell
    from support.app import App, Catalog, NewApp

    Eventually = Callable[[Callable[[], bool], str], None]
    When = Callable[[str, Callable[[], object]], Tell]

TABLE = "conversation_history"
NAME_BYTES_MAX = 63
MESSAGES: LiteralString = """
    SELECT id, channel_id, personality_id, role, content, created_at FROM conversation_history"""
OTHERS: tuple[LiteralString, ...] = (
    "SELECT id, discord_id, username, created_at, updated_at FROM users ORDER BY id",
    "SELECT * FROM personas ORDER BY id",
    "SELECT * FROM user_personality_settings ORDER BY id",
    "SELECT * FROM pending_memories ORDER BY id",
)


def prisma_name(columns: str, suffix: str) -> str:
    """The name that the app's ORM gives to an object on columns of the history."""
    return f"{TABLE}_{columns}"[: NAME_BYTES_MAX - len(suffix)] + suffix


def of_history(catalog: Catalog) -> Catalog:
    """The objects of the catalog that belong to the history, or to no table."""
    return {
        kind: {each for each in found if kind in {"functions", "schemas"} or TABLE in str(each)}
        for kind, found in catalog.items()
    }


def left(before: Catalog, after: Catalog) -> dict[str, tuple[set[Any], set[Any]]]:
    """The objects that went and those that came, by kind; equal kinds are absent."""
    return {
        kind: (before[kind] - after[kind], after[kind] - before[kind])
        for kind in before
        if before[kind] != after[kind]
    }


def test_every_row_gets_the_persona_that_the_settings_say(app: App) -> None:
    """A whole run gives each row the override, else the default, else a created persona."""
    assert Stage.CONTRACTED == app.run()
    assert app.expected() == app.personas()


def test_a_wrong_persona_would_be_seen(app: App) -> None:
    """The comparison above is not blind: one row moved to another persona makes it fail."""
    app.run()
    app.do(
        "UPDATE conversation_history SET persona_id = (SELECT id FROM personas p"
        " WHERE p.id <> persona_id LIMIT 1)"
        " WHERE id = (SELECT id FROM conversation_history LIMIT 1)"
    )

    assert app.expected() != app.personas()


def test_nothing_but_the_persona_changes(app: App) -> None:
    """Every other column of every message is as it was, and so is every other row of the app.

    Until contract even the old tables of the settings are as they were.
    """
    before = [app.query(text) for text in OTHERS]
    messages = set(app.query(MESSAGES))
    app.run(Phase.BACKFILL)
    created = {
        row[1] for row in app.query("SELECT user_id, persona_id FROM memsync.created_persona")
    }
    after = [app.query(text) for text in OTHERS]

    assert messages == set(app.query(MESSAGES))
    assert before == [[row for row in rows if row[0] not in created] for rows in after]


def test_catalog_differs_by_exactly_what_was_asked(app: App) -> None:
    """persona_id with key and index, and one index for retrieval, came; user_id went with its own.

    Names are the ORM's; no trigger or view is left; functions only in memsync's own schema.
    """
    before = app.catalog()
    app.run()
    persona_index = prisma_name("persona_id", "_idx")
    retrieval = prisma_name("channel_id_personality_id_persona_id_created_at_id", "_idx")
    expected = {
        "columns": (
            {(TABLE, "user_id", "uuid", True, None)},
            {(TABLE, "persona_id", "uuid", True, None)},
        ),
        "indexes": (
            {
                (
                    prisma_name("user_id", "_idx"),
                    "CREATE INDEX conversation_history_user_id_idx"
                    " ON public.conversation_history USING btree (user_id)",
                    True,
                )
            },
            {
                (
                    persona_index,
                    f"CREATE INDEX {persona_index}"
                    " ON public.conversation_history USING btree (persona_id)",
                    True,
                ),
                (
                    retrieval,
                    f"CREATE INDEX {retrieval} ON public.conversation_history USING btree"
                    " (channel_id, personality_id, persona_id, created_at DESC, id DESC)",
                    True,
                ),
            },
        ),
        "constraints": (
            {
                (
                    TABLE,
                    prisma_name("user_id", "_fkey"),
                    "FOREIGN KEY (user_id) REFERENCES users(id)"
                    " ON UPDATE CASCADE ON DELETE CASCADE",
                    True,
                )
            },
            {
                (
                    TABLE,
                    prisma_name("persona_id", "_fkey"),
                    "FOREIGN KEY (persona_id) REFERENCES personas(id)"
                    " ON UPDATE CASCADE ON DELETE CASCADE",
                    True,
                )
            },
        ),
        "functions": (set(), {("memsync", "memory_digest")}),
        "schemas": (set(), {("memsync",)}),
    }

    assert expected == left(of_history(before), of_history(app.catalog()))


def test_the_index_of_the_first_phase_is_named_as_the_orm_would(app: App) -> None:
    """After isolate, one index serves (channel, personality, user), newest first."""
    before = app.catalog()
    app.run(Phase.ISOLATE)
    name = prisma_name("channel_id_personality_id_user_id_created_at_id", "_idx")
    definition = (
        f"CREATE INDEX {name} ON public.conversation_history USING btree"
        " (channel_id, personality_id, user_id, created_at DESC, id DESC)"
    )

    assert (set(), {(name, definition, True)}) == left(before, app.catalog())["indexes"]


def has_user_index(app: App) -> bool:
    """Whether the index that serves reading by user stands, valid."""
    return any(index[0] == USER_INDEX and index[2] for index in app.catalog()["indexes"])


@pytest.mark.parametrize("method", ["in-place", "copy"])
def test_a_run_that_fills_leaves_the_user_index_out(app: App, new_app: NewApp, method: str) -> None:
    """A run phase by phase builds the user index; one straight to the fill lacks just that."""
    stepwise = new_app()
    for phase in list(Phase)[:4]:
        stepwise.run(phase)
    app.run(Phase.BACKFILL, options={"method": method})
    more = stepwise.catalog()["indexes"] - app.catalog()["indexes"]

    assert {USER_INDEX} == {index[0] for index in more}
    assert not has_user_index(app)
    assert {"indexes": (set(), more)} == left(app.catalog(), stepwise.catalog())
    assert all(step.done for step in app.status().steps if step.phase is not Phase.CONTRACT)


def test_the_user_index_is_built_when_it_is_asked_for(app: App) -> None:
    """A run to isolate builds the user index, however far the database is."""
    app.run(Phase.BACKFILL)
    assert Stage.BACKFILLED == app.run(Phase.ISOLATE)
    assert has_user_index(app)


@pytest.mark.parametrize(
    ("cut_at", "to"),
    [
        (cut_at, to)
        for cut_at in ("backfill", "contract")
        for to in (None, *list(Phase)[: 3 if cut_at == "backfill" else 4])
    ],
)
def test_the_way_back_brings_the_user_index(
    app: App, when: When, to: Phase | None, cut_at: str
) -> None:
    """A rollback to any phase builds the user index, also after a run that was cut short."""

    def fall() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        app.run(tell=when(cut_at, fall))
    with Postgres.open(app.url) as postgres:
        stage = rollback(postgres, app.settings(), to=to)

    assert (REACHED[to] if to else Stage.LEGACY) == stage
    assert (to is not None) == has_user_index(app)


def test_created_personas_are_defaults_of_those_who_had_none(app: App) -> None:
    """Exactly the unresolved users get a persona, which is named for them and their default."""
    before = app.query("SELECT id FROM personas")
    unresolved = {user.id for user in app.world.cast.users if not user.global_persona_id}
    app.run()
    created = app.query(
        "SELECT p.owner_id, p.name, p.description, d.persona_id = p.id"
        " FROM personas p JOIN user_default_personas d ON d.user_id = p.owner_id"
        " WHERE NOT p.id = ANY(%s)",
        [row[0] for row in before],
    )
    expected = {
        (user.id, f"{user.username}'s Persona", "Default persona", True)
        for user in app.world.cast.users
        if user.id in unresolved
    }

    assert 3 == len(unresolved)
    assert expected == set(created)
    assert len(expected) == len(created)


def test_phases_one_by_one_say_where_they_stand(app: App) -> None:
    """Each --to ends at its own stage; plan and status then tick exactly the steps done."""
    assert Stage.LEGACY == app.plan().stage
    for phase in Phase:
        assert REACHED[phase] == app.run(phase)
        done = {step.phase for step in app.status().steps if step.done}
        assert set(list(Phase)[: list(Phase).index(phase) + 1]) == done
        assert REACHED[phase] == app.plan().stage
    assert app.expected() == app.personas()


def test_each_phase_again_changes_nothing(app: App, settled: App) -> None:
    """Phases that are run again change nothing, and the end is that of a run in one go."""
    for phase in Phase:
        app.run(phase)
        filled = phase in {Phase.EXPAND, Phase.BACKFILL, Phase.CONTRACT}
        catalog, contents = app.catalog(), app.personas() if filled else None
        for earlier in list(Phase)[: list(Phase).index(phase) + 1]:
            app.run(earlier)
        assert catalog == app.catalog()
        assert contents is None or (contents == app.personas())
    assert settled.catalog() == app.catalog()
    assert settled.contents() == app.contents()


def test_what_is_filled_is_not_read_again(app: App) -> None:
    """A run that goes on from backfill leaves the fill and its checkpoint alone."""
    checkpoint = "SELECT rows_done, updated_at FROM memsync.backfill"
    app.run(Phase.BACKFILL)
    filled = app.query(checkpoint)
    app.run()
    assert filled == app.query(checkpoint)
    assert app.world.manifest.messages == app.status().rows_done


def test_most_rows_that_are_filled_stay_in_their_page(
    large_app: App, eventually: Eventually
) -> None:
    """Most rows, forward and back, are HOT updates: no index has a new entry for them.

    See https://www.postgresql.org/docs/current/storage-hot.html.
    """
    app = large_app
    updates = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = %s"
    messages = app.world.manifest.messages

    def stayed(filled: int) -> int:
        # A session reports what it did when it ends.
        eventually(lambda: app.query(updates, TABLE)[0][0] == filled, f"{filled} are counted")
        return int(app.query(updates, TABLE)[0][1])

    app.run(options={"method": "in-place"})
    forward = stayed(messages)
    assert forward > 0.6 * messages

    with Postgres.open(app.url) as postgres:
        rollback(postgres, app.settings(), to=None)
    assert stayed(2 * messages) - forward > 0.6 * messages


def test_verify_proves_every_row_before_contract(app: App) -> None:
    """Verify recomputes every row after backfill; after contract it can only count."""
    app.run(Phase.BACKFILL)
    before = app.verify()
    app.run()
    after = app.verify()

    assert (True, True, 0, 0, 0) == (
        before.ok,
        before.proven,
        before.null_persona_ids,
        before.unknown_persona_ids,
        before.wrong_persona_ids,
    )
    assert app.world.manifest.messages == before.rows_total == after.rows_total
    assert len(set(app.expected().values())) == before.unique_personas
    assert (True, False) == (after.ok, after.proven)


def test_the_commands_say_it_in_json(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of plan, status, run and verify prints one JSON object and exits with its status."""

    def said(*arguments: str) -> tuple[int, dict[str, Any]]:
        status = app.command(*arguments, "--json")
        out = capsys.readouterr().out
        return status, json.loads(out) if out else {}

    status, plan = said("plan")
    assert (14, "legacy", 3) == (status, plan["stage"], len(plan["unresolved"]))
    assert app.world.manifest.messages == sum(plan["rows_by_decision"].values())
    assert 1 == said("verify")[0]
    status, ran = said(
        *("run", "--unresolved", "create", "--quiet-minutes", "0", "--backup-confirmed", "test")
    )
    assert (0, "contracted") == (status, ran["stage"])
    status, proof = said("verify")
    assert (0, True, 0) == (status, proof["ok"], proof["wrong_persona_ids"])
    status, now = said("status")
    assert (0, "contracted", None) == (status, now["stage"], now["eta_s"])
    assert app.world.manifest.messages == now["rows_done"] == now["rows_total"]


def test_unresolved_users_stop_the_run_before_it_changes_anything(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --unresolved fail the users are listed, the status is 14, the database is as before."""
    catalog, users = app.catalog(), app.query("SELECT * FROM users ORDER BY id")
    unresolved = {str(user.id) for user in app.world.cast.users if not user.global_persona_id}

    assert 14 == app.command("run", "--unresolved", "fail", "--json")
    error = json.loads(capsys.readouterr().err)
    assert ("GateClosed", 14) == (error["error"], error["exit_status"])
    assert unresolved == set(error["users"])
    assert all(user in error["message"] for user in unresolved)
    assert unresolved == {user.user_id for user in app.plan().unresolved}
    assert catalog == app.catalog()
    assert users == app.query("SELECT * FROM users ORDER BY id")


def test_users_given_a_persona_open_the_gate(app: App) -> None:
    """Once each listed user has a persona, the same run goes through and creates none."""
    with pytest.raises(GateClosed):
        app.run(unresolved="fail")
    app.do(
        "WITH made AS (INSERT INTO personas (id, name, content, owner_id, updated_at)"
        " SELECT gen_random_uuid(), 'given', '', id, now() FROM users"
        " WHERE global_persona_id IS NULL RETURNING id, owner_id)"
        " UPDATE users u SET global_persona_id = made.id FROM made WHERE made.owner_id = u.id"
    )
    assert Stage.CONTRACTED == app.run(unresolved="fail")
    assert [] == app.query("SELECT * FROM personas WHERE description = 'Default persona'")
    assert [(3,)] == app.query(
        "SELECT count(DISTINCT persona_id) FROM conversation_history h"
        " JOIN personas p ON p.id = h.persona_id WHERE p.name = 'given'"
    )


def test_two_databases_at_once_in_one_process(new_app: NewApp) -> None:
    """A second run in the process is refused with nothing changed, and the first one ends well."""
    one, other = new_app(), new_app()
    seen: list[object] = []

    def run_other() -> None:
        try:
            seen.append(other.run())
        except StoreBusy as error:
            seen.append(error.message)

    def tell(step: Progress) -> None:
        if step.kind is Kind.FILL_PERSONAS and not seen:
            thread = threading.Thread(target=run_other)
            thread.start()
            thread.join()

    assert Stage.CONTRACTED == one.run(tell=tell)
    assert "another migration runs in this process" in str(seen[0])
    assert Stage.LEGACY == other.plan().stage
    assert Stage.CONTRACTED == other.run()
