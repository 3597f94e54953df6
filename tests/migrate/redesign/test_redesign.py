"""The redesign of the settings: what it leaves, what it keeps in step, and its way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString
from uuid import UUID, uuid4

import pytest

from memsync import migrate
from memsync.errors import GateClosed, InvalidInput
from memsync.stores.history.phases import Phase, Stage
from support.settings import SETTINGS, conflicting, in_step, new_persona, resolve_all

if TYPE_CHECKING:
    from support.app import App

# The schema that it leaves, table by table: what went, and what came.
GONE = {
    ("users", "global_persona_id"),
    ("personalities", "llm_config_id"),
    ("personalities", "context_window_size"),
    ("personas", "is_global"),
    ("llm_configs", "is_default"),
}
CAME = {
    ("llm_configs", "owner_id", "uuid", False, None),
    ("llm_configs", "is_global", "boolean", True, "false"),
    ("llm_configs", "context_window_size", "integer", True, "20"),
    ("user_default_personas", "user_id", "uuid", True, None),
    ("user_default_personas", "persona_id", "uuid", True, None),
    ("user_default_personas", "updated_at", "timestamp(3) without time zone", True, None),
    ("personality_default_configs", "personality_id", "uuid", True, None),
    ("personality_default_configs", "llm_config_id", "uuid", True, None),
    ("personality_default_configs", "updated_at", "timestamp(3) without time zone", True, None),
    ("personas", "owner_id", "uuid", True, None),
}
INDEXES = {
    "user_default_personas_pkey",
    "user_default_personas_user_id_key",
    "user_default_personas_persona_id_idx",
    "personality_default_configs_pkey",
    "personality_default_configs_personality_id_key",
    "personality_default_configs_llm_config_id_idx",
    "llm_configs_owner_id_idx",
    "llm_configs_is_global_idx",
    "user_personality_configs_pkey",
    "user_personality_configs_user_id_personality_id_key",
    "user_personality_configs_user_id_idx",
    "user_personality_configs_personality_id_idx",
}
KEYS = {
    ("user_default_personas", "user_default_personas_user_id_fkey"),
    ("user_default_personas", "user_default_personas_persona_id_fkey"),
    ("personality_default_configs", "personality_default_configs_personality_id_fkey"),
    ("personality_default_configs", "personality_default_configs_llm_config_id_fkey"),
    ("llm_configs", "llm_configs_owner_id_fkey"),
    ("user_personality_configs", "user_personality_configs_user_id_fkey"),
    ("user_personality_configs", "user_personality_configs_personality_id_fkey"),
    ("user_personality_configs", "user_personality_configs_persona_id_fkey"),
    ("user_personality_configs", "user_personality_configs_llm_config_id_fkey"),
}


def test_what_is_left_is_the_schema_asked_for(app: App) -> None:
    """Columns, indexes and keys have the ORM's names, and no trigger or view is left."""
    before = app.catalog()
    app.run()
    after = app.catalog()
    columns = {each[:2] for each in before["columns"]} - {each[:2] for each in after["columns"]}
    settings = {each for each in columns if each[0] != "user_personality_settings"}

    assert settings == GONE | {("conversation_history", "user_id")}
    assert CAME <= after["columns"]
    assert {name for name, *_ in after["indexes"]} >= INDEXES
    assert {each[:2] for each in after["constraints"]} >= KEYS
    assert all(valid for *_, valid in after["constraints"])
    assert not after["triggers"]
    assert not after["views"]
    assert not [each for each in after["columns"] if "settings" in each[0]]
    assert not [name for name, *_ in after["indexes"] if "settings" in name]
    assert not [each for each in after["constraints"] if "settings" in each[1]]


def test_there_and_back_says_what_was_said(app: App) -> None:
    """Taken back from redesign or from contract, every old setting has its old value."""
    resolve_all(app)
    app.do("UPDATE personas SET is_global = true WHERE id = (SELECT id FROM personas LIMIT 1)")
    catalog, said = app.catalog(), [app.query(text) for text in SETTINGS]
    for phase in (Phase.REDESIGN, Phase.CONTRACT):
        app.run(phase)
        assert Stage.LEGACY == app.back()
        assert said == [app.query(text) for text in SETTINGS]
        after = app.catalog()
        kinds = ("columns", "indexes", "constraints", "triggers")
        assert [catalog[kind] for kind in kinds] == [after[kind] for kind in kinds]


@pytest.mark.parametrize("stage", [Phase.REDESIGN, Phase.BACKFILL])
def test_what_either_version_says_the_other_reads(app: App, stage: Phase) -> None:
    """Defaults and configs written in either place are read in both, until contract."""
    app.run(stage)
    user, persona = app.query("SELECT owner_id, id FROM personas LIMIT 1")[0]
    assert in_step(app)
    for statement, params in (
        ("UPDATE users SET global_persona_id = %s WHERE id = %s", (persona, user)),
        ("UPDATE users SET global_persona_id = NULL WHERE id = %s", (user,)),
        ("INSERT INTO user_default_personas VALUES (%s, %s, now())", (user, persona)),
        (
            "UPDATE user_default_personas SET persona_id = %s WHERE user_id = %s",
            (new_persona(app, user), user),
        ),
        ("DELETE FROM user_default_personas WHERE user_id = %s", (user,)),
        ("UPDATE users SET global_persona_id = %s WHERE id = %s", (persona, user)),
        ("DELETE FROM personas WHERE id = %s", (persona,)),
        ("UPDATE personalities SET llm_config_id = NULL", ()),
        (
            "INSERT INTO personality_default_configs SELECT p.id, c.id, now()"
            " FROM personalities p, (SELECT id FROM llm_configs ORDER BY id LIMIT 1) c",
            (),
        ),
        ("UPDATE llm_configs SET context_window_size = context_window_size + 1", ()),
        (
            "UPDATE personalities SET context_window_size = 77"
            " WHERE id = (SELECT min(id::text)::uuid FROM personalities)",
            (),
        ),
        (
            "DELETE FROM personality_default_configs WHERE personality_id ="
            " (SELECT max(id::text)::uuid FROM personalities)",
            (),
        ),
        (
            "DELETE FROM llm_configs WHERE id = (SELECT llm_config_id FROM personalities"
            " WHERE llm_config_id IS NOT NULL LIMIT 1)",
            (),
        ),
        ("DELETE FROM users WHERE id = %s", (user,)),
    ):
        assert app.do(statement, *params), statement
        assert in_step(app), statement


def test_choices_are_one_table_by_two_names(app: App) -> None:
    """An upsert or delete by the old name changes the rows of the new table."""
    app.run(Phase.REDESIGN)
    user, personality, persona = app.query(
        "SELECT u.id, p.id, x.id FROM users u, personalities p, personas x"
        " WHERE x.owner_id = u.id AND NOT EXISTS (SELECT FROM user_personality_configs c"
        " WHERE c.user_id = u.id AND c.personality_id = p.id) LIMIT 1"
    )[0]
    upsert = (
        "INSERT INTO user_personality_settings (id, user_id, personality_id, persona_id,"
        " updated_at) VALUES (gen_random_uuid(), %s, %s, %s, now())"
        " ON CONFLICT (user_id, personality_id) DO UPDATE SET persona_id = excluded.persona_id"
    )
    for chosen in (None, persona):
        app.do(upsert, user, personality, chosen)
        assert [(chosen,)] == app.query(
            "SELECT persona_id FROM user_personality_configs"
            " WHERE user_id = %s AND personality_id = %s AND created_at IS NOT NULL",
            user,
            personality,
        )
    app.do("DELETE FROM user_personality_settings WHERE user_id = %s", user)
    assert [] == app.query("SELECT FROM user_personality_configs WHERE user_id = %s", user)


def test_a_config_of_several_windows_is_forked(app: App) -> None:
    """Every personality keeps its window; a fork equals its config but for name and window."""
    config, windows = conflicting(app)
    configs = app.query("SELECT count(*) FROM llm_configs")[0][0]
    app.run()
    after = app.query(
        "SELECT d.personality_id, c.context_window_size FROM personality_default_configs d"
        " JOIN llm_configs c ON c.id = d.llm_config_id ORDER BY 1"
    )
    assert windows == after
    assert [(configs + len({size for _, size in windows}) - 1,)] == app.query(
        "SELECT count(*) FROM llm_configs"
    )
    assert [(True,)] == app.query(
        "SELECT bool_and(f.model = c.model AND f.temperature = c.temperature AND NOT f.is_global"
        " AND f.name LIKE c.name || ' (window %%)') FROM memsync.config_fork k"
        " JOIN llm_configs f ON f.id = k.fork_id JOIN llm_configs c ON c.id = k.config_id"
        " WHERE c.id = %s",
        config,
    )


def test_forks_go_on_the_way_back_and_come_again_the_same(app: App) -> None:
    """Back, the personalities share their config again; forward, the forks are the same rows."""
    resolve_all(app)
    conflicting(app)
    before = [app.query(text) for text in SETTINGS]
    app.run(Phase.REDESIGN)
    app.do("UPDATE llm_configs SET temperature = 0.11 WHERE name LIKE '%%(window %%'")
    forked = app.query("SELECT * FROM llm_configs ORDER BY id")
    app.back()
    assert before == [app.query(text) for text in SETTINGS]
    app.run(Phase.REDESIGN)
    assert forked == app.query("SELECT * FROM llm_configs ORDER BY id")
    app.run()
    app.back()
    assert before == [app.query(text) for text in SETTINGS]


def test_an_orphan_belongs_to_the_one_who_uses_it(app: App) -> None:
    """An orphan's only user becomes its owner, whether it is their default or a choice."""
    user = app.world.cast.users[0].id
    other = app.world.cast.users[1].id
    default, chosen = new_persona(app, None), new_persona(app, None)
    app.do("UPDATE users SET global_persona_id = %s WHERE id = %s", default, user)
    app.do("DELETE FROM user_personality_settings WHERE user_id = %s", other)
    app.do(
        "INSERT INTO user_personality_settings"
        " (id, user_id, personality_id, persona_id, updated_at)"
        " SELECT gen_random_uuid(), %s, id, %s, now() FROM personalities",
        other,
        chosen,
    )
    app.run()
    owners: dict[UUID, UUID | None] = dict(app.query("SELECT id, owner_id FROM personas"))
    assert {user, other} == {owners[default], owners[chosen]}
    app.back()
    after: dict[UUID, UUID | None] = dict(app.query("SELECT id, owner_id FROM personas"))
    assert {None} == {after[default], after[chosen]}


@pytest.mark.parametrize("users", [0, 2])
def test_nobody_guesses_an_owner(app: App, users: int) -> None:
    """An orphan that nobody or two users use stops the run before anything is changed."""
    orphan = new_persona(app, None)
    for user in app.world.cast.users[:users]:
        app.do("UPDATE users SET global_persona_id = %s WHERE id = %s", orphan, user.id)
    catalog = app.catalog()
    with pytest.raises(GateClosed, match=rf"{orphan} \({users} users\)") as refused:
        app.run()
    assert [str(orphan)] == refused.value.fields["personas"]
    assert catalog == app.catalog()
    assert 14 == app.command("run", "--unresolved", "create")


def test_an_orphan_is_assigned_to_whom_the_operator_names(app: App) -> None:
    """assign:USER_ID gives it to that user; a user who does not exist is refused."""
    orphan, user = new_persona(app, None), app.world.cast.users[3].id
    with pytest.raises(InvalidInput, match="no user"):
        app.run(options={"orphan_owners": f"assign:{uuid4()}"})
    app.run(options={"orphan_owners": f"assign:{user}"})
    assert [(user,)] == app.query("SELECT owner_id FROM personas WHERE id = %s", orphan)


@pytest.mark.parametrize("wrong", ["", "guess", "assign:", "assign:me"])
def test_another_word_for_orphans_is_refused(wrong: str) -> None:
    """A choice that is neither fail, quarantine nor assign:USER_ID is a usage error."""
    with pytest.raises(InvalidInput, match="orphan_owners"):
        migrate.RunOptions(orphan_owners=wrong)


def test_a_quarantined_persona_is_kept_and_comes_back(app: App) -> None:
    """A quarantined persona leaves its table and its users' settings; the way back restores all."""
    orphan = new_persona(app, None)
    first, second = app.world.cast.users[:2]
    app.do("UPDATE users SET global_persona_id = %s WHERE id = %s", orphan, first.id)
    app.do(
        "UPDATE user_personality_settings SET persona_id = %s WHERE user_id = %s", orphan, second.id
    )
    before = [app.query(text) for text in SETTINGS]
    personas = app.query("SELECT * FROM personas ORDER BY id")
    app.run(Phase.REDESIGN, options={"orphan_owners": "quarantine"})
    assert [] == app.query("SELECT FROM personas WHERE id = %s", orphan)
    assert in_step(app)
    assert Stage.LEGACY == app.back()
    assert before == [app.query(text) for text in SETTINGS]
    assert personas == app.query("SELECT * FROM personas ORDER BY id")

    app.run(options={"orphan_owners": "quarantine"})
    assert orphan not in app.personas().values()
    assert [] == app.query("SELECT FROM user_default_personas WHERE persona_id = %s", orphan)


def test_an_orphan_made_by_an_old_version_meanwhile_is_settled_by_contract(app: App) -> None:
    """Contract asks again for owners of orphans, and gives one made since to its only user."""
    app.run(Phase.BACKFILL)
    user = app.world.cast.users[0].id
    orphan = new_persona(app, None)
    with pytest.raises(GateClosed, match=str(orphan)):
        app.run()
    app.do("UPDATE users SET global_persona_id = %s WHERE id = %s", orphan, user)
    assert Stage.CONTRACTED == app.run()
    assert [(user,)] == app.query("SELECT owner_id FROM personas WHERE id = %s", orphan)


def test_what_the_redesign_of_the_app_itself_left_stays_on_the_way_back(redesigned: App) -> None:
    """Tables that the app made and columns that it dropped are not memsync's to take back."""
    catalog = redesigned.catalog()
    redesigned.run()
    redesigned.back()
    after = redesigned.catalog()
    assert catalog["columns"] == after["columns"]
    assert catalog["triggers"] == after["triggers"]


PROMPT_INDEXES: LiteralString = (
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " WHERE i.indrelid = to_regclass('system_prompts') AND c.relname LIKE '%default%' ORDER BY 1"
)
OLD, NEW = "idx_system_prompts_default", "system_prompts_is_default_idx"
PROMPTS: dict[str, tuple[LiteralString, list[str], list[str]]] = {
    "old": ("SELECT", [OLD], [NEW]),
    "new": (f"ALTER INDEX {OLD} RENAME TO {NEW}", [NEW], [NEW]),
    "both": (f"CREATE INDEX {NEW} ON system_prompts (is_default)", [OLD, NEW], [OLD, NEW]),
    "none": (f"DROP INDEX {OLD}", [], []),
    "no table": (
        "ALTER TABLE personalities DROP COLUMN system_prompt_id; DROP TABLE system_prompts",
        [],
        [],
    ),
}


@pytest.mark.parametrize("state", PROMPTS)
def test_the_index_of_the_prompts_is_renamed_as_the_app_renames_it(app: App, state: str) -> None:
    """The index gets its new name, and on the way back its old one if memsync renamed it."""
    made, before, after = PROMPTS[state]
    with app.connected() as connection:
        connection.execute(made)
    assert [(each,) for each in before] == app.query(PROMPT_INDEXES)
    app.run(Phase.REDESIGN)
    assert [(each,) for each in after] == app.query(PROMPT_INDEXES)
    app.back()
    assert [(each,) for each in before] == app.query(PROMPT_INDEXES)
