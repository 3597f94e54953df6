"""A table that the app's own script has half filled: one choice for what the proof refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString
from uuid import UUID

import pytest

from memsync.errors import GateClosed, StoreUnreachable
from memsync.migrate import Check, State
from memsync.stores.history.phases import Phase, Stage
from support.failing import Crash
from support.moments import cut_before
from support.starts import ADD_COLUMN, FILL_RIGHTLY, HALF, script

if TYPE_CHECKING:
    from support.app import App

CHANGED: LiteralString = """
    UPDATE users u SET global_persona_id = (SELECT p.id FROM personas p WHERE p.owner_id = u.id
                                            AND p.id <> u.global_persona_id ORDER BY p.id LIMIT 1)
    WHERE EXISTS (SELECT FROM personas p WHERE p.owner_id = u.id AND p.id <> u.global_persona_id)
"""
FOREIGN: LiteralString = """
    UPDATE conversation_history h
    SET persona_id = (SELECT p.id FROM personas p WHERE p.owner_id <> h.user_id ORDER BY 1 LIMIT 1)
    WHERE h.id = (SELECT min(n.id::text)::uuid FROM conversation_history n JOIN users u
                  ON u.id = n.user_id WHERE u.global_persona_id IS NULL AND NOT EXISTS (
                      SELECT FROM user_personality_settings s WHERE s.user_id = u.id))
"""


def check(app: App) -> Check:
    return next(check for check in app.plan().checks if check.name == "existing personas")


WRONG: LiteralString = """
    UPDATE conversation_history h
    SET persona_id = (SELECT p.id FROM personas p WHERE p.owner_id <> h.user_id ORDER BY 1 LIMIT 1)
    WHERE h.id IN (SELECT n.id FROM conversation_history n WHERE NOT EXISTS (
                       SELECT FROM memsync.row_archive a WHERE a.history_id = n.id)
                   ORDER BY n.id LIMIT 3)
    RETURNING h.id
"""
BY_SETTINGS: LiteralString = """
    SELECT h.id, h.persona_id, coalesce(s.persona_id, u.global_persona_id)
    FROM conversation_history h JOIN users u ON u.id = h.user_id
    LEFT JOIN user_personality_settings s
           ON s.user_id = h.user_id AND s.personality_id = h.personality_id
    WHERE h.persona_id IS NOT NULL
      AND h.persona_id IS DISTINCT FROM coalesce(s.persona_id, u.global_persona_id)
"""


@pytest.fixture
def refused(app: App) -> dict[UUID, tuple[UUID, UUID | None]]:
    """The app half filled by its own script, then settings changed. By message that the settings
    do not confirm: the persona that it has, and what they say.
    """
    script(app, ADD_COLUMN, FILL_RIGHTLY, HALF)
    assert State.OK is check(app).state
    script(app, CHANGED, ";", FOREIGN)
    found = {row: (has, says) for row, has, says in app.query(BY_SETTINGS)}
    unsaid = sum(says is None for _, says in found.values())
    assert (1, True) == (unsaid, len(found) > 1)
    return found


Refused = dict[UUID, tuple[UUID, UUID | None]]


def test_plan_and_run_say_how_many_are_refused_and_why(app: App, refused: Refused) -> None:
    """The run stops before its first change, and names the one choice for all of them."""
    found = check(app)
    total = len(refused)
    said = f"{total:,} messages have a persona that the proof refuses: the settings say another one"
    assert (State.BLOCKER, True) == (found.state, f"{said} for {total - 1}" in found.found)
    before = app.catalog()
    with pytest.raises(GateClosed, match=f"{said}.*--existing keep") as error:
        app.run()
    assert total == error.value.fields["rows"]
    with pytest.raises(GateClosed, match=r"1 user has no persona \(1 message\)"):
        app.run(unresolved="fail", options={"existing": "decide"})
    assert before == app.catalog()


@pytest.mark.parametrize("method", ["in-place", "copy"])
@pytest.mark.parametrize("existing", ["keep", "decide"])
def test_one_choice_serves_all_of_them(
    app: App, refused: Refused, existing: str, method: str
) -> None:
    """All keep their persona, or all get that of the settings; the choice is on record."""
    had = {row: persona for row, persona in app.personas().items() if persona}
    assert Stage.BACKFILLED == app.run(
        Phase.BACKFILL, options={"existing": existing, "method": method}
    )
    assert app.verify().ok
    now = app.personas()
    kept = {row: now[row] for row in had}
    if existing == "keep":
        assert had == kept
    else:
        assert {row for row in had if had[row] != kept[row]} == set(refused)
        assert {says for _, says in refused.values() if says} == {
            now[row] for row, (_, says) in refused.items() if says
        }
    assert [(existing,)] == app.query(
        "SELECT DISTINCT options ->> 'existing' FROM memsync.runs WHERE verb = 'run'"
    )
    assert Stage.CONTRACTED == app.run()

    assert Stage.LEGACY == app.back()
    assert had.items() <= app.personas().items()
    # Everything was taken back, and so was the choice.
    if existing == "decide":
        with pytest.raises(GateClosed, match="--existing keep"):
            app.run()


@pytest.mark.parametrize("words", ["CREATE TABLE public.user_default_personas", "row_archive (h"])
def test_a_run_that_goes_on_keeps_the_choice(
    app: App, refused: Refused, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was cut short is finished without saying the choice again."""
    with monkeypatch.context() as patched:
        cut_before(patched, words.replace("public", '"public"'))
        with pytest.raises((Crash, StoreUnreachable)):
            app.run(options={"existing": "keep"})
    assert Stage.CONTRACTED == app.run()
    assert {row: has for row, (has, _) in refused.items()}.items() <= app.personas().items()


def test_a_choice_may_come_after_the_backfill(app: App, refused: Refused) -> None:
    """A backfill alone asks nothing; contract then names the choice, which settles it."""
    app.run(Phase.BACKFILL)
    with pytest.raises(GateClosed, match="--existing keep"):
        app.run()
    assert Stage.CONTRACTED == app.run(options={"existing": "keep"})
    assert {row: has for row, (has, _) in refused.items()}.items() <= app.personas().items()


@pytest.mark.parametrize("existing", ["keep", "decide"])
def test_a_choice_of_before_settles_nothing_that_goes_wrong_later(
    app: App, refused: Refused, existing: str
) -> None:
    """Once the backfill stands, a run that is not given the choice anew leaves it to the proof."""
    assert refused
    app.run(Phase.BACKFILL, options={"existing": existing})
    assert app.verify().ok
    wrong = app.query(WRONG)
    spoken = app.personas()
    assert (3, False) == (len(wrong), app.verify().ok)

    assert Stage.BACKFILLED == app.run(Phase.BACKFILL)
    with pytest.raises(GateClosed, match="the proof failed") as closed:
        app.run()

    assert (spoken, False) == (app.personas(), app.verify().ok)
    assert "user_id" in {name for _, name, *_ in app.catalog()["columns"]}
    assert "--existing" not in f"{app.plan().next} {app.status().next}"
    assert "--existing keep" in closed.value.message
    # The operator looks at them, and chooses for these.
    assert Stage.CONTRACTED == app.run(options={"existing": "keep"})
    assert spoken == app.personas()


def test_a_run_names_the_choice_no_more_once_it_obeyed_it(app: App, refused: Refused) -> None:
    """The gate after the backfill prints a command, which may be typed when others went wrong."""
    with pytest.raises(GateClosed, match="without a backup") as closed:
        app.run(options={"existing": "keep", "backup_confirmed": None})
    assert "--existing" not in closed.value.message
    assert [(None,)] == app.query(
        "SELECT options ->> 'existing' FROM memsync.runs WHERE phase = 'contract'"
    )
    assert refused
