"""The way back to the start ends where the app began: its own objects stay, memsync's go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, LiteralString
from uuid import uuid4

import pytest

from memsync import migrate
from memsync.errors import GateClosed
from memsync.model.progress import Kind, Progress
from memsync.model.records import Point
from memsync.model.wording import count
from memsync.settings import Settings
from memsync.stores.history.phases import REACHED, Phase, Stage
from memsync.stores.postgres import Postgres
from memsync.stores.vectors import open_vectors
from support.kills import of_the_app
from support.starts import ADD_COLUMN, FILL_RIGHTLY, HALF, REDESIGN, script

if TYPE_CHECKING:
    from memsync.stores.vectors.protocol import VectorStore
    from support.app import App


@pytest.fixture
def vectors() -> Iterator[VectorStore]:
    """A vector store without memories."""
    with closing(open_vectors(Settings(qdrant_url=":memory:"))) as store:
        yield store


STARTS = {
    "legacy": (),
    "column alone": ("ALTER TABLE conversation_history ADD COLUMN persona_id uuid",),
    "column, index and key": (ADD_COLUMN,),
    "column half filled": (ADD_COLUMN, FILL_RIGHTLY, HALF),
    "redesign done": (REDESIGN,),
    "both": (ADD_COLUMN, FILL_RIGHTLY, HALF, ";", REDESIGN),
    "no index or key of user_id": (
        "DROP INDEX conversation_history_user_id_idx;"
        " ALTER TABLE conversation_history DROP CONSTRAINT conversation_history_user_id_fkey",
    ),
}


@pytest.mark.parametrize(
    "last",
    [Phase.EXPAND, pytest.param(Phase.BACKFILL, marks=pytest.mark.slow), Phase.CONTRACT],
)
@pytest.mark.parametrize("start", STARTS)
def test_the_apps_own_objects_stay(app: App, start: str, last: Phase) -> None:
    """Column, index, key and tables of the app's own migrations stand as they did before."""
    script(app, *STARTS[start])
    before, stage = of_the_app(app.catalog()), app.plan().stage
    assert stage == Stage.LEGACY
    app.run(last)
    assert before != of_the_app(app.catalog())

    assert stage == app.back()

    assert before == of_the_app(app.catalog())


def test_a_backfill_that_was_cut_short_leaves_no_index(app: App) -> None:
    """An index that memsync built beside the app's column goes, although backfill never ended."""
    script(app, ADD_COLUMN)
    before = of_the_app(app.catalog())
    app.run(Phase.BACKFILL)
    app.do("ALTER TABLE conversation_history DROP CONSTRAINT conversation_history_persona_id_fkey")
    assert Stage.LEGACY == app.back()
    key = "conversation_history_persona_id_fkey"
    before["constraints"] = {each for each in before["constraints"] if each[1] != key}  # type: ignore[index]
    assert before == of_the_app(app.catalog())


OLD_DEFAULTS: LiteralString = "SELECT id, global_persona_id FROM users ORDER BY id"
NEW_DEFAULTS: LiteralString = (
    "SELECT user_id, persona_id FROM user_default_personas ORDER BY user_id"
)
PERSONAS: LiteralString = "SELECT to_jsonb(p) FROM personas p ORDER BY id"
CREATED: LiteralString = "SELECT user_id, persona_id FROM memsync.created_persona ORDER BY user_id"


def back(app: App, vectors: VectorStore | None, to: Phase | None = None) -> list[str]:
    """`memsync migrate rollback` with these memories; its notes."""
    notes: list[str] = []

    def tell(step: Progress) -> None:
        if step.kind is Kind.NOTE:
            notes.append(step.what)

    memories = (lambda: vectors) if vectors else None
    with Postgres.open(app.url) as postgres:
        migrate.rollback(postgres, app.settings(), to=to, memories=memories, tell=tell)
    return notes


@pytest.mark.parametrize("start", [(), (REDESIGN,)])
def test_personas_that_memsync_made_go(
    app: App, vectors: VectorStore, start: tuple[str, ...]
) -> None:
    """Personas and defaults are those of before; forward again each comes back under its id."""
    script(app, *start)
    defaults = NEW_DEFAULTS if start else OLD_DEFAULTS
    before = app.query(PERSONAS), app.query(defaults)
    app.run(Phase.BACKFILL)
    spoken = app.personas()
    assert len(app.query(CREATED)) > 0
    assert before != (app.query(PERSONAS), app.query(defaults))

    assert [] == back(app, vectors)

    assert before == (app.query(PERSONAS), app.query(defaults))
    with pytest.raises(GateClosed, match="no persona"):
        app.run(unresolved="fail")
    app.run()
    assert spoken == app.personas()
    assert app.verify().ok


USES: dict[str, LiteralString] = {
    "conversation_history.persona_id holds it": ADD_COLUMN,
    "user_personality_settings.persona_id holds it": (
        "INSERT INTO user_personality_settings"
        " (id, user_id, personality_id, persona_id, updated_at)"
        " SELECT gen_random_uuid(), c.user_id, p.id, c.persona_id, now()"
        " FROM memsync.created_persona c, personalities p"
        " ON CONFLICT (user_id, personality_id) DO UPDATE SET persona_id = excluded.persona_id"
    ),
    "pending_memories.persona_id holds it": (
        "INSERT INTO pending_memories (id, conversation_history_id, persona_id, personality_id,"
        " text, metadata) SELECT DISTINCT ON (user_id) h.id, h.id, c.persona_id, personality_id,"
        " '', '{}' FROM memsync.created_persona c JOIN conversation_history h USING (user_id)"
    ),
    "another user's default": (
        "UPDATE users u SET global_persona_id = c.persona_id FROM memsync.created_persona c"
        " WHERE u.id = (SELECT id FROM users WHERE id NOT IN"
        " (SELECT user_id FROM memsync.created_persona) ORDER BY id LIMIT 1)"
    ),
    "somebody wrote into it": (
        "UPDATE personas SET content = 'I am.' WHERE id IN"
        " (SELECT persona_id FROM memsync.created_persona)"
    ),
    "the outbox has its memory": (
        "INSERT INTO memsync.outbox (point_id) SELECT DISTINCT ON (user_id) h.id"
        " FROM memsync.created_persona c JOIN conversation_history h USING (user_id)"
    ),
}


@pytest.mark.parametrize("why", USES)
def test_a_persona_that_is_used_stays(app: App, vectors: VectorStore, why: str) -> None:
    """A use of a persona is left as it is, and the note says why the persona stays."""
    if USES[why] == ADD_COLUMN:
        script(app, ADD_COLUMN)
    app.run(Phase.BACKFILL)
    if USES[why] != ADD_COLUMN:
        app.back(Phase.REDESIGN)
        app.back()
        script(app, USES[why])
    created = app.query(CREATED)

    note, *_ = back(app, vectors)

    stay = app.query(
        "SELECT c.user_id, p.id FROM personas p"
        " JOIN memsync.created_persona c ON c.persona_id = p.id ORDER BY c.user_id"
    )
    said = ("default persona that memsync made stays", "default personas that memsync made stay")
    assert f"{count(len(stay), *said)}: " in note
    assert 0 < note.count(f"({why})") == len(stay)
    assert "Persona" not in note  # nobody's name
    assert set(stay) <= set(created)


def test_a_persona_with_memories_stays(app: App, vectors: VectorStore) -> None:
    """A memory at home or in the app's own collection keeps its persona; unread, all stay."""
    app.run(Phase.BACKFILL)
    (_, at_home), (_, deployed), (_, unused) = app.query(CREATED)
    home = app.settings().collection
    for name, key in ((home, "persona_id"), (f"persona-{deployed}", "personaId")):
        vectors.create(name, 2, {})
        point = Point(uuid4(), {key: str(at_home if name == home else deployed)}, (1.0, 0.0))
        vectors.upsert(name, [point])

    app.back()
    standing: LiteralString = (
        "SELECT id FROM personas WHERE id IN (SELECT persona_id FROM memsync.created_persona)"
    )
    assert {(at_home,), (deployed,), (unused,)} == set(app.query(standing))
    note, *_ = back(app, None)
    assert 3 == note.count("no memories were read")

    note, *_ = back(app, vectors)

    assert {(at_home,), (deployed,)} == set(app.query(standing))
    assert 2 == note.count("(it has memories)")


@pytest.mark.parametrize("why", ["somebody wrote into it", "the outbox has its memory"])
def test_a_persona_that_is_used_while_the_memories_are_read_stays(
    app: App, vectors: VectorStore, why: str
) -> None:
    """Clients go on while the store is asked; the last word is spoken under the lock."""
    app.run(Phase.BACKFILL)
    app.back(Phase.REDESIGN)
    app.back()
    created = app.query(CREATED)
    notes: list[str] = []

    def tell(step: Progress) -> None:
        if step.kind is Kind.NOTE:
            notes.append(step.what)

    def memories() -> VectorStore:
        app.do(USES[why])
        return vectors

    with Postgres.open(app.url) as postgres:
        migrate.rollback(postgres, app.settings(), to=None, memories=memories, tell=tell)

    assert len(created) == notes[0].count(f"({why})")
    assert {(persona,) for _, persona in created} <= set(app.query("SELECT id FROM personas"))


def test_a_persona_that_the_app_removed_itself_does_not_stay(
    app: App, vectors: VectorStore
) -> None:
    """A table without a key may still name it; the others go, and no note says that it stays."""
    app.run(Phase.BACKFILL)
    app.back()
    *removed, _ = app.query(CREATED)
    app.do("CREATE TABLE notes (persona_id uuid)")
    for user, persona in removed:
        app.do("INSERT INTO notes VALUES (%s)", persona)
        app.do("UPDATE users SET global_persona_id = NULL WHERE id = %s", user)
        app.do("DELETE FROM personas WHERE id = %s", persona)

    assert (2, []) == (len(removed), back(app, vectors))

    assert [] == app.query(
        "SELECT FROM personas JOIN memsync.created_persona c ON c.persona_id = personas.id"
    )


@pytest.mark.parametrize("to", [None, Phase.ISOLATE, Phase.BACKFILL])
def test_nothing_is_done_where_nothing_was_migrated(app: App, to: Phase | None) -> None:
    """A database that was never migrated stays as it is, and the answer says so."""
    before = app.catalog()
    notes = back(app, None, to)
    assert before == app.catalog()
    assert ["nothing was taken back: memsync did not migrate this"] == notes


@pytest.mark.parametrize(
    ("last", "to"), [(Phase.EXPAND, Phase.BACKFILL), (Phase.REDESIGN, Phase.REDESIGN)]
)
def test_a_phase_that_is_not_reached_is_not_gone_back_to(
    app: App, last: Phase, to: Phase, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rollback to the phase that stands, or to a later one, changes nothing and says so."""
    app.run(last)
    before, runs = app.catalog(), app.query("SELECT count(*) FROM memsync.runs")

    assert 0 == app.command("rollback", "--to", to, "--json")

    assert (before, runs) == (app.catalog(), app.query("SELECT count(*) FROM memsync.runs"))
    said = json.loads(capsys.readouterr().out)
    assert (REACHED[last], [f"nothing was taken back: no phase after {to} stands"]) == (
        said["stage"],
        said["notes"],
    )


def test_a_decision_whose_persona_is_gone_is_not_filled_in(app: App) -> None:
    """The app's own key stands when the fill begins, so an old decision would be refused by it."""
    script(app, ADD_COLUMN)
    app.run(Phase.BACKFILL)
    app.back()
    app.do("UPDATE conversation_history SET persona_id = NULL")
    lost = app.query("SELECT persona_id FROM memsync.persona_map ORDER BY 1 LIMIT 1")[0][0]
    app.do("DELETE FROM personas WHERE id = %s", lost)
    assert Stage.BACKFILLED == app.run(Phase.BACKFILL)
    assert None not in app.personas().values()
