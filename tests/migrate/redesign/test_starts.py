"""The redesign where the app has done a part of it, for a role with few grants, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

from memsync import migrate
from memsync.errors import GateClosed, SchemaMismatch
from memsync.migrate.redesign import phase as redesign_phase
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from support.settings import SETTINGS, conflicting, in_step, new_persona, resolve_all
from support.starts import ADD_COLUMN, script

if TYPE_CHECKING:
    from support.app import App

DEFAULTS = (
    "CREATE TABLE user_default_personas (user_id uuid PRIMARY KEY REFERENCES users ON DELETE"
    " CASCADE, persona_id uuid NOT NULL REFERENCES personas ON DELETE CASCADE,"
    " updated_at timestamp(3) NOT NULL)"
)
CONFIGS = (
    "CREATE TABLE personality_default_configs (personality_id uuid PRIMARY KEY REFERENCES"
    " personalities ON DELETE CASCADE, llm_config_id uuid NOT NULL REFERENCES llm_configs"
    " ON DELETE CASCADE, updated_at timestamp(3) NOT NULL)"
)
CHOICES = (
    "CREATE TABLE user_personality_configs (LIKE user_personality_settings INCLUDING ALL);"
    " ALTER TABLE user_personality_configs ADD COLUMN note text"
)
# ruff: noqa: S608  constants of this file
HALF_DONE: dict[str, LiteralString] = {
    "defaults empty": DEFAULTS,
    "defaults of others": DEFAULTS + "; INSERT INTO user_default_personas SELECT DISTINCT ON"
    " (owner_id) owner_id, id, now() FROM personas ORDER BY owner_id, id DESC",
    "configs of others": CONFIGS + "; INSERT INTO personality_default_configs SELECT p.id,"
    " (SELECT id FROM llm_configs ORDER BY id LIMIT 1), now() FROM personalities p",
    "both choices": CHOICES + "; INSERT INTO user_personality_configs (id, user_id,"
    " personality_id, persona_id, updated_at) SELECT id, user_id, personality_id, NULL, updated_at"
    " FROM user_personality_settings ORDER BY id LIMIT 5",
    "new columns": "ALTER TABLE llm_configs ADD owner_id uuid, ADD context_window_size int"
    " NOT NULL DEFAULT 20",
    "window gone": "ALTER TABLE personalities DROP COLUMN context_window_size",
    "config gone": "ALTER TABLE personalities DROP COLUMN context_window_size,"
    " DROP COLUMN llm_config_id",
    "owners required": "ALTER TABLE personas ALTER owner_id SET NOT NULL",
    "columns of its own": "ALTER TABLE llm_configs ADD n int GENERATED ALWAYS AS IDENTITY,"
    " ADD long boolean GENERATED ALWAYS AS (max_tokens > 100) STORED, ADD must text NOT NULL"
    " DEFAULT 'x'; ALTER TABLE llm_configs ALTER must DROP DEFAULT;"
    " ALTER TABLE personas ADD n int GENERATED ALWAYS AS IDENTITY",
}


@pytest.mark.parametrize("state", HALF_DONE)
def test_a_half_done_redesign_is_completed_and_taken_back(app: App, state: str) -> None:
    """The redesign is completed from each state, and the way back restores that state."""
    resolve_all(app)
    conflicting(app)
    app.do("DELETE FROM personas WHERE owner_id IS NULL")
    with app.connected() as connection:
        connection.execute(HALF_DONE[state].encode())
    catalog = app.catalog()
    app.run(Phase.REDESIGN)
    if state not in {"window gone", "config gone"}:
        assert in_step(app)
    assert Stage.CONTRACTED == app.run()
    assert Stage.LEGACY == app.back()
    after = app.catalog()
    kinds = ("columns", "indexes", "constraints", "triggers")
    assert {kind: catalog[kind] for kind in kinds} == {kind: after[kind] for kind in kinds}
    assert {("memsync", "memory_digest")} == after["functions"] - catalog["functions"]
    assert Stage.CONTRACTED == app.run()


def test_where_the_app_placed_configs_windows_are_kept(app: App) -> None:
    """The configs in the app's new table count, and no personality loses its window."""
    _, windows = conflicting(app)
    with app.connected() as connection:
        connection.execute(HALF_DONE["configs of others"].encode())
    app.run(Phase.REDESIGN)
    assert in_step(app)
    assert windows == app.query("SELECT id, context_window_size FROM personalities ORDER BY id")


def test_a_choice_removed_meanwhile_does_not_come_back(app: App) -> None:
    """A choice deleted after both tables were merged does not return with the old table."""
    with app.connected() as connection:
        connection.execute(HALF_DONE["both choices"].encode())
    app.run(Phase.REDESIGN)
    user = app.query("SELECT user_id FROM user_personality_configs LIMIT 1")[0][0]
    assert app.do("DELETE FROM user_personality_settings WHERE user_id = %s", user)
    app.back()
    assert [] == app.query("SELECT FROM user_personality_settings WHERE user_id = %s", user)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (DEFAULTS.replace("user_id uuid PRIMARY KEY", "user_id uuid"), "not unique by user_id"),
        (DEFAULTS.replace("persona_id uuid", "persona_id text").replace("NOT NULL REFERENCES"
         " personas ON DELETE CASCADE", ""), "persona_id is text, not uuid"),
        (DEFAULTS.replace("NOT NULL)", "NOT NULL, id uuid NOT NULL)"), "id must have a value"),
        (DEFAULTS.replace(", updated_at timestamp(3) NOT NULL", ""), "no column updated_at"),
        ("CREATE VIEW user_default_personas AS SELECT id AS user_id, global_persona_id AS"
         " persona_id, updated_at FROM users", "not an ordinary table"),
        (CHOICES + "; ALTER TABLE user_personality_configs DROP created_at", "lacks created_at"),
        ("ALTER TABLE llm_configs ADD owner_id text", "owner_id is text"),
        ("ALTER TABLE llm_configs ADD slug text UNIQUE", "unique by slug"),
        ("ALTER TABLE personalities DROP COLUMN llm_config_id", "no llm_config_id"),
        ("DROP TABLE llm_configs CASCADE", "no table llm_configs"),
    ],
)  # fmt: skip
def test_what_cannot_be_completed_is_refused_before_anything_is_changed(
    app: App, state: LiteralString, why: str
) -> None:
    """Plan and run name the requirement that is not met, and change nothing."""
    with app.connected() as connection:
        connection.execute(state.encode())
    catalog = app.catalog()
    for each in (app.plan, app.run):
        with pytest.raises(SchemaMismatch, match=why):
            each()
    assert catalog == app.catalog()


@pytest.fixture
def limited(app: App) -> str:
    """The URL of the app's database for a role that owns nothing in it."""
    role = f"app_{uuid4().hex}"
    with app.connected() as connection:
        for statement in (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
            f"REVOKE ALL ON users, user_personality_settings FROM {role}",
            f"GRANT SELECT, UPDATE (global_persona_id) ON users TO {role}",
            f"GRANT SELECT, DELETE, INSERT, UPDATE (persona_id, updated_at)"
            f" ON user_personality_settings TO {role}",
        ):
            connection.execute(statement.encode())
    return psycopg.conninfo.make_conninfo(app.url, user=role)


def test_a_role_with_few_grants_keeps_them_in_the_new_tables(app: App, limited: str) -> None:
    """A role that may set a default may do so in the new table; column grants hold in the view."""
    app.run(Phase.REDESIGN)
    user, persona = app.query("SELECT owner_id, id FROM personas LIMIT 1")[0]
    personality, config = app.query("SELECT p.id, c.id FROM personalities p, llm_configs c")[0]
    with psycopg.connect(limited, autocommit=True) as client:
        for statement, params in (
            ("UPDATE users SET global_persona_id = %s WHERE id = %s", (persona, user)),
            ("DELETE FROM user_default_personas WHERE user_id = %s", (user,)),
            ("INSERT INTO user_default_personas VALUES (%s, %s, now())", (user, persona)),
            ("UPDATE user_default_personas SET updated_at = now() WHERE user_id = %s", (user,)),
            ("UPDATE personalities SET context_window_size = 7 WHERE id = %s", (personality,)),
            ("DELETE FROM personality_default_configs", ()),
            (
                "INSERT INTO personality_default_configs VALUES (%s, %s, now())",
                (personality, config),
            ),
            ("UPDATE llm_configs SET context_window_size = 9, is_default = true", ()),
            ("UPDATE user_personality_settings SET persona_id = NULL", ()),
            ("UPDATE user_personality_configs SET persona_id = NULL", ()),
            ("SELECT FROM user_personality_settings FOR UPDATE", ()),
        ):
            assert client.execute(statement, params).rowcount > 0, statement
        for statement in (
            "UPDATE user_personality_settings SET llm_config_id = NULL",
            "SELECT memsync.sync_default(NULL, NULL, NULL)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                client.execute(statement)
    assert in_step(app)


def test_tables_in_another_schema_stay_together(app: App) -> None:
    """New tables and the view are made in the app's schema, not in the first of the search path."""
    for statement in (
        "CREATE SCHEMA first", "ALTER SCHEMA public RENAME TO theirs",
    ):  # fmt: skip
        app.do(statement)
    name = app.query("SELECT current_database()")[0][0]
    app.do("ALTER DATABASE " + name + " SET search_path = first, theirs")
    app.run(Phase.REDESIGN)
    found = app.query(
        "SELECT DISTINCT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relname ~ '^(user_default|personality_default|user_personality|llm_configs)'"
    )
    assert [("theirs",)] == found
    assert in_step(app)
    app.back()
    assert [] == app.query("SELECT FROM pg_class WHERE relnamespace = 'first'::regnamespace")


def test_statements_prepared_before_the_rename_work_after_it(app: App) -> None:
    """Statements prepared with the old name work after the redesign, and after the way back."""
    user = app.query("SELECT user_id FROM user_personality_settings ORDER BY id LIMIT 1")[0][0]
    with app.connected() as client:
        client.execute(
            "PREPARE chosen AS SELECT id, persona_id FROM user_personality_settings"
            " WHERE user_id = $1 ORDER BY id"
        )
        client.execute(
            "PREPARE choose AS UPDATE user_personality_settings SET updated_at = now()"
            " WHERE user_id = $1 RETURNING id"
        )
        before = client.execute(f"EXECUTE chosen('{user}')".encode()).fetchall()
        for there in (True, False):
            assert app.run(Phase.REDESIGN) if there else app.back()
            assert before == client.execute(f"EXECUTE chosen('{user}')".encode()).fetchall()
            assert len(before) == client.execute(f"EXECUTE choose('{user}')".encode()).rowcount


def test_what_users_chose_of_the_forks_is_theirs_again(app: App) -> None:
    """After the way back and forward, choices and personalities have the same forks again."""
    resolve_all(app)
    conflicting(app)
    app.run(Phase.REDESIGN)
    app.do("UPDATE user_personality_configs SET llm_config_id = (SELECT min(fork_id::text)::uuid"
           " FROM memsync.config_fork)")  # fmt: skip
    app.do("UPDATE llm_configs SET context_window_size = 60, owner_id = (SELECT id FROM users"
           " LIMIT 1) WHERE id IN (SELECT fork_id FROM memsync.config_fork)")  # fmt: skip
    texts: tuple[LiteralString, ...] = (
        "SELECT id, llm_config_id FROM user_personality_configs ORDER BY id",
        "SELECT personality_id, llm_config_id FROM personality_default_configs ORDER BY 1",
        "SELECT to_jsonb(c) FROM llm_configs c ORDER BY id",
    )
    said = [app.query(text) for text in texts]
    for phase in (Phase.REDESIGN, Phase.CONTRACT):
        app.run(phase)
        app.back()
        app.run(Phase.REDESIGN)
        assert said == [app.query(text) for text in texts]


def test_a_quarantined_persona_takes_nothing_with_it(app: App) -> None:
    """A persona that rows of another table refer to is not quarantined; the error counts them."""
    orphan = new_persona(app, None)
    app.do("CREATE TABLE shares (id int, persona_id uuid REFERENCES personas ON DELETE CASCADE)")
    app.do("INSERT INTO shares VALUES (1, %s)", orphan)
    before = app.catalog()
    with pytest.raises(GateClosed, match=r"1 of shares\.persona_id"):
        app.run(options={"orphan_owners": "quarantine"})
    assert before == app.catalog()
    assert [(1,)] == app.query("SELECT count(*) FROM shares")


def shared_orphan(app: App) -> tuple[UUID, list[UUID], int]:
    """A persona without an owner, the default of two users, and how many messages they have."""
    resolve_all(app)
    orphan = new_persona(app, None)
    users = [user for (user,) in app.query(
        "SELECT user_id FROM conversation_history h WHERE NOT EXISTS (SELECT FROM"
        " user_personality_settings s WHERE s.user_id = h.user_id) GROUP BY 1 ORDER BY 1 LIMIT 2"
    )]  # fmt: skip
    app.do("UPDATE users SET global_persona_id = %s WHERE id = ANY(%s)", orphan, users)
    messages = "SELECT count(*) FROM conversation_history WHERE user_id = ANY(%s)"
    return orphan, users, app.query(messages, users)[0][0]


def test_a_quarantine_that_leaves_users_without_a_persona_is_refused_at_once(app: App) -> None:
    """Plan and run name those users, with their messages, before anything is changed."""
    _, users, messages = shared_orphan(app)
    check = next(check for check in app.plan().checks if check.name == "personas")
    assert f"they leave 2 users ({messages:,} messages) without a persona" in check.found
    before = app.catalog()
    with pytest.raises(
        GateClosed, match=rf"2 users have no persona \({messages} messages\)"
    ) as refused:
        app.run(Phase.BACKFILL, unresolved="fail", options={"orphan_owners": "quarantine"})
    assert str(sorted(map(str, users))) == str(refused.value.fields["users"])
    assert before == app.catalog()

    both = "--unresolved create --orphan-owners quarantine --evidence ignore"
    assert f"memsync migrate run --to backfill {both}" == app.plan().next
    assert Stage.CONTRACTED == app.run(options={"orphan_owners": "quarantine"})
    assert app.verify().ok


def test_a_quarantine_that_messages_forbid_is_refused_at_once(app: App) -> None:
    """An orphan that messages name already cannot leave; plan and run count them all."""
    orphan, users, messages = shared_orphan(app)
    script(app, ADD_COLUMN)
    app.do("UPDATE conversation_history SET persona_id = %s WHERE user_id = ANY(%s)", orphan, users)
    check = next(check for check in app.plan().checks if check.name == "personas")
    assert f"cannot be quarantined, rows refer to them: {orphan} ({messages} of messages)" in (
        check.found
    )
    assert "quarantine" not in (app.plan().next or "")
    before = app.catalog()
    with pytest.raises(GateClosed, match=f"{messages} of messages"):
        app.run(options={"orphan_owners": "quarantine"})
    assert before == app.catalog()


def test_finalize_says_what_it_removes_and_ends_the_way_back(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finalize says how many quarantined personas it removes; then there is no way back."""
    new_persona(app, None)
    app.run(options={"orphan_owners": "quarantine"})
    assert 0 == app.command("finalize")
    assert "1 quarantined persona" in capsys.readouterr().out
    assert 0 == app.command("finalize", "--yes")
    assert [] == app.query("SELECT FROM memsync.orphan_persona")
    with pytest.raises(GateClosed, match="no way back"):
        app.back()
    assert Stage.CONTRACTED == app.run()


def test_plan_says_what_the_redesign_has_to_decide(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plan shows orphans, the owners they would get and configs to be forked, and only reads."""
    conflicting(app)
    user, orphan = app.world.cast.users[0].id, new_persona(app, None)
    app.do("UPDATE users SET global_persona_id = %s WHERE id = %s", orphan, user)
    alone = new_persona(app, None)
    ahead = app.plan().redesign
    assert ahead
    assert {orphan: user, alone: None} == {each.persona_id: each.owner for each in ahead.orphans}
    assert 1 == len(ahead.forks)
    capsys.readouterr()
    assert 14 == app.command("plan")
    text = capsys.readouterr().out
    assert f"{orphan}  goes to {user}" in text
    assert f"{alone}  0 users use it: run --orphan-owners" in text
    both = "--unresolved create --orphan-owners quarantine --evidence ignore"
    assert f"next: memsync migrate run --to backfill {both}" == text.splitlines()[-1]
    assert 14 == app.command("plan", "--json")
    assert 2 == len(json.loads(capsys.readouterr().out)["redesign"]["orphans"])
    assert [] == app.query("SELECT FROM pg_namespace WHERE nspname = 'memsync'")


def test_what_plan_says_is_next_is_not_refused(app: App) -> None:
    """Plan's `next` asks for an owner while an orphan would stop the run, then names the run."""
    resolve_all(app)
    alone = new_persona(app, None)
    decide = "memsync migrate run --to backfill --orphan-owners quarantine --evidence ignore"
    assert (False, decide) == (app.plan().ok, app.plan().next)
    assert 14 == app.command("run", "--to", "backfill")
    app.do("DELETE FROM personas WHERE id = %s", alone)
    assert "memsync migrate run --to backfill --evidence ignore" == app.plan().next
    assert 0 == app.command("run", "--to", "backfill")


def test_a_way_back_cut_short_at_its_end_restores_the_quarantined(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback cut short at its end is finished by the next, quarantined personas included."""
    resolve_all(app)
    new_persona(app, None)
    before = [app.query(text) for text in SETTINGS]
    app.run(Phase.REDESIGN, options={"orphan_owners": "quarantine"})

    def ended(_: object) -> None:
        raise GateClosed("cut short")

    with monkeypatch.context() as patched:
        patched.setattr(redesign_phase, "restore_orphans", ended)
        with pytest.raises(GateClosed, match="cut short"):
            app.back()
    assert Stage.LEGACY == app.back()
    assert before == [app.query(text) for text in SETTINGS]
    with Postgres.open(app.url) as postgres:
        assert Stage.LEGACY == migrate.rollback(postgres, app.settings(), to=None)
