"""The preflight on dependents of the columns that go: views, triggers, functions and rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql

from memsync.errors import GateClosed
from memsync.migrate import State, rollback
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from support.preflight import assert_refused, checks

if TYPE_CHECKING:
    from support.app import App

HANGS_ON_USER_ID: dict[str, LiteralString] = {
    "view talk": "CREATE VIEW talk AS SELECT user_id FROM conversation_history",
    "materialized view talk": (
        "CREATE MATERIALIZED VIEW talk AS SELECT user_id FROM conversation_history"
    ),
    "policy own on table conversation_history": (
        "CREATE POLICY own ON conversation_history USING (user_id IS NOT NULL)"
    ),
    "trigger moved on table conversation_history": (
        "CREATE TRIGGER moved BEFORE UPDATE OF user_id ON conversation_history"
        " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    ),
    "function speakers()": (
        "CREATE FUNCTION speakers() RETURNS bigint LANGUAGE sql"
        " BEGIN ATOMIC SELECT count(user_id) FROM conversation_history; END"
    ),
    "constraint note_fkey on table note": (
        "ALTER TABLE conversation_history ADD UNIQUE (id, user_id);"
        " CREATE TABLE note (id uuid, user_id uuid, CONSTRAINT note_fkey"
        " FOREIGN KEY (id, user_id) REFERENCES conversation_history (id, user_id))"
    ),
    "publication of table conversation_history in publication feed": (
        "CREATE PUBLICATION feed FOR TABLE conversation_history (id, user_id)"
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("named", "made"), HANGS_ON_USER_ID.items(), ids=HANGS_ON_USER_ID.keys())
def test_what_hangs_on_user_id_blocks_contract(app: App, named: str, made: LiteralString) -> None:
    """A dependent of user_id stops the run and is named: Postgres would not drop the column."""
    with app.connected() as connection:
        connection.execute(made.encode())
    found = checks(app)["user_id"]

    assert (State.BLOCKER, (Phase.CONTRACT,)) == (found.state, found.phases)
    assert named in found.found
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        app.do("ALTER TABLE conversation_history DROP COLUMN user_id")
    assert_refused(app, "user_id")


def test_a_blocker_of_contract_lets_the_phases_before_it_run(app: App) -> None:
    """`--to backfill` runs; contract is refused until the view is gone."""
    app.do("CREATE VIEW talk AS SELECT user_id FROM conversation_history")
    assert Stage.BACKFILLED == app.run(Phase.BACKFILL)
    assert_refused(app, "user_id")
    app.do("DROP VIEW talk")
    assert Stage.CONTRACTED == app.run()


def test_a_view_on_persona_id_stops_the_way_back(app: App) -> None:
    """A view on persona_id stops the way back with status 14 and is named, until it is dropped."""
    app.run(Phase.BACKFILL)
    app.do("CREATE VIEW talk AS SELECT persona_id FROM conversation_history")
    with Postgres.open(app.url) as postgres, pytest.raises(GateClosed, match="view talk depends"):
        rollback(postgres, app.settings(), to=None)
    assert 14 == app.command("rollback", "--to", "start")
    app.do("DROP VIEW talk")
    assert 0 == app.command("rollback", "--to", "start")


HANGS_ON_OLD_SETTINGS: dict[str, LiteralString] = {
    "view talk (users.global_persona_id)": (
        "CREATE VIEW talk AS SELECT id, global_persona_id FROM users"
    ),
    "materialized view talk (personalities.llm_config_id)": (
        "CREATE MATERIALIZED VIEW talk AS SELECT id, llm_config_id FROM personalities"
    ),
    "column twice of table personalities (personalities.context_window_size)": (
        "ALTER TABLE personalities ADD COLUMN twice int"
        " GENERATED ALWAYS AS (2 * context_window_size) STORED"
    ),
    "policy shared on table personas (personas.is_global)": (
        "CREATE POLICY shared ON personas USING (is_global)"
    ),
    "trigger moved on table llm_configs (llm_configs.is_default)": (
        "CREATE TRIGGER moved BEFORE UPDATE OF is_default ON llm_configs"
        " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    ),
}


@pytest.mark.parametrize(
    ("named", "made"), HANGS_ON_OLD_SETTINGS.items(), ids=HANGS_ON_OLD_SETTINGS.keys()
)
def test_what_hangs_on_old_settings_blocks_contract(
    app: App, named: str, made: LiteralString
) -> None:
    """A dependent of an old column of the settings stops the run, and is named with the column."""
    app.do(made)
    found = checks(app)["old settings"]

    assert (State.BLOCKER, (Phase.CONTRACT,)) == (found.state, found.phases)
    assert named in found.found
    table, _, column = named.rpartition("(")[2].removesuffix(")").partition(".")
    drop = sql.SQL("ALTER TABLE {} DROP COLUMN {}")
    with app.connected() as connection, pytest.raises(psycopg.errors.DependentObjectsStillExist):
        connection.execute(drop.format(sql.Identifier(table), sql.Identifier(column)))
    assert_refused(app, "old settings")


def test_what_hangs_on_the_old_table_of_choices_follows_its_new_name(app: App) -> None:
    """A view that was made on the old table of choices follows the renaming, and stays."""
    app.do("CREATE VIEW talk AS SELECT user_id, persona_id FROM user_personality_settings")
    assert State.OK is checks(app)["old settings"].state
    assert Stage.CONTRACTED == app.run()
    assert app.query("SELECT * FROM talk")


@pytest.mark.parametrize(
    ("named", "made"),
    [
        ("view talk", "CREATE VIEW talk AS SELECT user_id FROM user_personality_settings"),
        (
            "function chosen()",
            "CREATE FUNCTION chosen() RETURNS SETOF user_personality_settings LANGUAGE sql AS"
            " 'SELECT * FROM user_personality_settings'",
        ),
    ],
)
def test_what_hangs_on_the_view_of_choices_blocks_contract(
    app: App, named: str, made: LiteralString
) -> None:
    """From redesign on the old name is a view that contract drops, so its dependents block it."""
    app.run(Phase.BACKFILL)
    assert State.OK is checks(app)["old settings"].state
    app.do(made)
    found = checks(app)["old settings"]

    assert (State.BLOCKER, (Phase.CONTRACT,)) == (found.state, found.phases)
    assert f"{named} (user_personality_settings)" in found.found
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        app.do("DROP VIEW user_personality_settings")
    assert_refused(app, "old settings")


@pytest.mark.parametrize(
    ("named", "made"),
    [
        (
            "index mine (users.global_persona_id)",
            "CREATE INDEX mine ON users (global_persona_id, id)",
        ),
        (
            "constraint small on table personalities (personalities.context_window_size)",
            "ALTER TABLE personalities ADD CONSTRAINT small CHECK (context_window_size < 1000)",
        ),
    ],
)
def test_what_goes_with_old_settings_is_named(app: App, named: str, made: LiteralString) -> None:
    """An object that Postgres drops with a column of the settings is named as a warning."""
    app.do(made)
    found = checks(app)["old settings"]

    assert State.WARNING is found.state
    assert named in found.found
    assert Stage.CONTRACTED == app.run()


@pytest.mark.parametrize(
    ("named", "made"),
    [
        ("index mine", "CREATE INDEX mine ON conversation_history (user_id, role)"),
        (
            "constraint mine on table conversation_history",
            "ALTER TABLE conversation_history ADD CONSTRAINT mine UNIQUE (user_id, id)",
        ),
        (
            "constraint mine on table conversation_history",
            "ALTER TABLE conversation_history ADD CONSTRAINT mine CHECK (user_id IS NOT NULL)",
        ),
        (
            "statistics object mine",
            "CREATE STATISTICS mine ON user_id, channel_id FROM conversation_history",
        ),
    ],
)
def test_what_goes_with_user_id_is_named(app: App, named: str, made: LiteralString) -> None:
    """An object that Postgres drops with user_id is named as a warning."""
    app.do(made)
    found = checks(app)["user_id"]

    assert State.WARNING is found.state
    assert named in found.found
    assert Stage.CONTRACTED == app.run()


def test_triggers_that_read_user_id_block_contract(app: App) -> None:
    """A trigger that reads user_id blocks contract, because every later write would fail."""
    app.do(
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM NEW.user_id; RETURN NEW; END $$"
    )
    app.do(
        "CREATE TRIGGER stamp BEFORE INSERT ON conversation_history"
        " FOR EACH ROW EXECUTE FUNCTION stamp()"
    )
    assert (State.BLOCKER, (Phase.CONTRACT,)) == (
        checks(app)["triggers"].state,
        checks(app)["triggers"].phases,
    )
    assert_refused(app, "triggers")


def test_a_trigger_that_only_speaks_of_user_id_blocks_nothing(app: App) -> None:
    """A user_id of another table, in a comment or in json fails nothing, so it blocks nothing."""
    app.do(
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN -- not the user_id\n"
        " PERFORM to_jsonb(NEW) ->> 'user_id', (SELECT max(s.user_id::text)"
        " FROM user_personality_settings s); RETURN NEW; END $$"
    )
    app.do(
        "CREATE TRIGGER audit BEFORE INSERT ON conversation_history"
        " FOR EACH ROW EXECUTE FUNCTION audit()"
    )
    assert State.OK is checks(app)["triggers"].state
    assert Stage.CONTRACTED == app.run()


def test_triggers_that_fire_for_every_filled_row_are_named(app: App) -> None:
    """A trigger that fires for every filled row is a warning."""
    app.do(
        "CREATE TRIGGER calm BEFORE UPDATE ON conversation_history"
        " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    found = checks(app)["triggers"]
    assert State.WARNING is found.state
    assert "calm (suppress_redundant_updates_trigger)" in found.found
    assert Stage.CONTRACTED == app.run()


def test_functions_that_speak_of_user_id_are_named(app: App) -> None:
    """A function whose text names user_id is a warning only, because texts prove little."""
    app.do(
        "CREATE FUNCTION last_words(who uuid) RETURNS text LANGUAGE sql AS"
        " 'SELECT content FROM conversation_history WHERE user_id = who LIMIT 1'"
    )
    found = checks(app)["functions"]
    assert (State.WARNING, True) == (found.state, "last_words(uuid)" in found.found)


def test_rewrite_rules_block_every_phase(app: App) -> None:
    """A rule on UPDATE blocks every phase, because it would replace the fill."""
    app.do("CREATE RULE quiet AS ON UPDATE TO conversation_history DO INSTEAD NOTHING")
    assert tuple(Phase) == checks(app)["rules"].phases
    assert_refused(app, "rules")


def test_rewrite_rules_on_other_commands_are_named(app: App) -> None:
    """A rule on another command is a warning, because it does not touch the fill."""
    app.do("CREATE RULE also AS ON DELETE TO conversation_history DO ALSO NOTHING")
    assert State.WARNING is checks(app)["rules"].state
    assert Stage.CONTRACTED == app.run()
