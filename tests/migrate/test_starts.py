"""States in which memsync may find an app; a run goes on from each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from memsync.errors import GateClosed
from memsync.stores.history.phases import Phase, Stage
from support.starts import (
    ADD_COLUMN,
    CREATE_MISSING,
    DROP_USER,
    FILL_BY_DEFAULT_ONLY,
    FILL_RIGHTLY,
    HALF,
    script,
)

if TYPE_CHECKING:
    from support.app import App


def test_column_added_but_empty(app: App, settled: App) -> None:
    """The app's own first step, with its index and key, is taken as it is and filled."""
    script(app, ADD_COLUMN)
    assert Stage.LEGACY == app.plan().stage
    assert Stage.CONTRACTED == app.run()
    assert app.expected() == app.personas()
    assert settled.catalog() == app.catalog()


def test_column_half_filled(app: App, settled: App) -> None:
    """Rows that were filled by the right rule stay; the others are filled by it."""
    script(app, ADD_COLUMN, FILL_RIGHTLY, HALF)
    filled = {key: value for key, value in app.personas().items() if value}
    app.run()
    after = app.personas()

    assert 0 < len(filled) < len(after)
    assert filled == {key: after[key] for key in filled}
    assert app.expected() == after
    assert settled.catalog() == app.catalog()


def test_finished_by_hand(app: App, settled: App) -> None:
    """Where user_id is gone and persona_id is NOT NULL, only missing objects are built."""
    script(app, CREATE_MISSING, ADD_COLUMN, FILL_RIGHTLY, ";", DROP_USER)
    before = app.personas()
    assert Stage.BACKFILLED == app.plan().stage
    assert Stage.CONTRACTED == app.run(unresolved="fail")
    assert before == app.personas()
    assert settled.catalog() == app.catalog()
    assert settled.contents() == app.contents()


def test_finished_by_hand_without_key_and_index(app: App, settled: App) -> None:
    """A migration by hand that left out the index, the key and NOT NULL gets them."""
    script(
        app,
        CREATE_MISSING,
        "ALTER TABLE conversation_history ADD COLUMN persona_id uuid;",
        FILL_RIGHTLY,
        ";ALTER TABLE conversation_history DROP COLUMN user_id",
    )
    assert Stage.CONTRACTED == app.run(unresolved="fail")
    assert settled.catalog() == app.catalog()
    assert settled.contents() == app.contents()


def test_redesign_done(redesigned: App) -> None:
    """Defaults are read from user_default_personas, overrides from user_personality_configs."""
    assert Stage.CONTRACTED == redesigned.run()
    assert redesigned.expected() == redesigned.personas()
    created = redesigned.query(
        "SELECT c.user_id, d.persona_id = c.persona_id FROM memsync.created_persona c"
        " JOIN user_default_personas d USING (user_id)"
    )
    unresolved = {user.id for user in redesigned.world.cast.users if not user.global_persona_id}
    assert {(user, True) for user in unresolved} == set(created)


def test_rows_that_have_a_persona_need_no_setting(app: App) -> None:
    """A user whose rows all have a persona is not in the way, though no setting names one."""
    user, persona = app.query(
        "SELECT user_id, u.global_persona_id FROM conversation_history JOIN users u"
        " ON u.id = user_id WHERE u.global_persona_id IS NOT NULL LIMIT 1"
    )[0]
    script(app, CREATE_MISSING, ADD_COLUMN, FILL_RIGHTLY)
    app.do("UPDATE users SET global_persona_id = NULL WHERE id = %s", user)
    app.do("UPDATE user_personality_settings SET persona_id = NULL WHERE user_id = %s", user)

    assert persona in app.personas().values()
    assert () == app.plan().unresolved
    assert Stage.CONTRACTED == app.run(unresolved="fail")


@pytest.mark.parametrize(
    "some",
    [
        pytest.param(
            "",
            id="every row",
        ),
        pytest.param(HALF, id="half the rows"),
    ],
)
def test_column_filled_by_the_default_alone_is_found(app: App, some: str) -> None:
    """Rows of an override that were filled with the user's default are wrong, and named so."""
    script(app, CREATE_MISSING, ADD_COLUMN, FILL_BY_DEFAULT_ONLY, some.replace("WHERE", "AND"))
    expected = app.expected()
    wrong = sum(persona not in {None, expected[row]} for row, persona in app.personas().items())
    assert wrong > 0
    before = app.catalog()
    with pytest.raises(GateClosed, match=f"{wrong:,} messages have a persona"):
        app.run()
    assert before == app.catalog()
    app.run(Phase.BACKFILL)
    with pytest.raises(GateClosed, match="--existing keep"):
        app.run()
    assert wrong == app.verify().wrong_persona_ids


def test_user_default_personas_made_but_not_yet_filled(app: App) -> None:
    """Between the redesign's first step and its second, users.global_persona_id still counts."""
    script(
        app,
        "CREATE TABLE user_default_personas (user_id uuid PRIMARY KEY REFERENCES users (id),"
        " persona_id uuid NOT NULL REFERENCES personas (id), updated_at timestamp(3) NOT NULL)",
    )
    unresolved = {str(user.id) for user in app.world.cast.users if not user.global_persona_id}

    assert unresolved == {user.user_id for user in app.plan().unresolved}


def test_alembic_is_not_the_one_to_say_what_is_done(app: App, settled: App) -> None:
    """An index dropped after the phase that builds it is built again by the next run."""
    app.run(Phase.BACKFILL)
    app.do("DROP INDEX conversation_history_persona_id_idx")
    assert Stage.EXPANDED == app.plan().stage
    assert Stage.CONTRACTED == app.run()
    assert settled.catalog() == app.catalog()


@pytest.mark.parametrize("left", ["0007", "a branch of others"])
def test_a_version_that_alembic_does_not_know(app: App, left: str) -> None:
    """Whatever stands in memsync's version table, a run and a rollback replace it."""
    app.run(Phase.EXPAND)
    app.do("UPDATE memsync.alembic_version SET version_num = %s", left)
    assert Stage.BACKFILLED == app.run(Phase.BACKFILL)
    app.do("UPDATE memsync.alembic_version SET version_num = %s", left)
    assert Stage.LEGACY == app.back()


def test_app_restored_beside_our_schema(app: App, settled: App) -> None:
    """A history restored from before the migration, beside our schema, is migrated again."""
    script(app, "CREATE TABLE kept AS TABLE conversation_history")
    app.run()
    script(
        app,
        "ALTER TABLE conversation_history ADD COLUMN user_id uuid REFERENCES users (id)"
        " ON UPDATE CASCADE ON DELETE CASCADE;"
        " UPDATE conversation_history h SET user_id = k.user_id FROM kept k WHERE k.id = h.id;"
        " ALTER TABLE conversation_history DROP COLUMN persona_id,"
        " ALTER user_id SET NOT NULL; DROP TABLE kept",
    )
    assert Stage.REDESIGNED == app.plan().stage
    assert Stage.CONTRACTED == app.run()
    assert app.expected() == app.personas()
    assert settled.catalog() == app.catalog()
