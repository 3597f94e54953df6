"""`memsync migrate resolve`: Prisma's history says what the catalog says, at every stage."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from memsync.stores.history.catalog import RETRIEVAL_INDEX
from memsync.stores.history.phases import Phase, Stage
from support.prisma import (
    APPLIED,
    COLUMN,
    END,
    FAILED,
    NAMES,
    REDESIGN,
    applied,
    checksum_of,
    folder_with,
    history,
)
from support.roles import at_url, role
from support.terminal import on_terminal

if TYPE_CHECKING:
    from pathlib import Path

    from support.app import App, NewApp

HELD: dict[Stage, set[str]] = {
    Stage.LEGACY: set(),
    Stage.ISOLATED: set(),
    # The old places of the settings stay until contract, so the redesign is not done yet.
    Stage.REDESIGNED: set(),
    # Index and key of persona_id come after the fill.
    Stage.EXPANDED: set(),
    Stage.BACKFILLED: {COLUMN},
    Stage.CONTRACTED: set(NAMES),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The app's folder of migrations."""
    return folder_with(tmp_path / "prisma", *NAMES)


def resolve_all(app: App, folder: Path) -> int:
    """The exit status of `memsync migrate resolve --all`."""
    return app.command("resolve", "--all", "--prisma-dir", str(folder))


def commands(app: App, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The commands by which `status` mends Prisma's history."""
    capsys.readouterr()
    assert 0 == app.command("status", "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return [each["next"] for each in found["prisma_checks"]]


def obey(app: App, folder: Path, said: list[str]) -> None:
    """Run the commands that memsync printed, with the folder in place of its placeholder."""
    for command in said:
        words = command.replace("PATH/TO/prisma/migrations", str(folder)).split()
        assert ["memsync", "migrate"] == words[:2]
        assert 0 == app.command(*words[2:])


def test_at_every_stage_it_says_what_the_catalog_says(
    app: App, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forward and back, --all and the commands of `status` record what is held, and no more."""
    assert 0 == resolve_all(app, folder)
    assert set() == applied(app)
    for phase in Phase:
        stage = app.run(phase)
        assert 0 == resolve_all(app, folder)
        assert (stage, HELD[stage]) == (stage, applied(app))
        assert [] == commands(app, capsys)
    for kept in (Phase.BACKFILL, Phase.EXPAND, Phase.REDESIGN, Phase.ISOLATE, None):
        stage = app.back(kept)
        before = applied(app)
        assert 0 == resolve_all(app, folder)
        assert before == applied(app)
        obey(app, folder, commands(app, capsys))
        assert (stage, HELD[stage]) == (stage, applied(app))
        assert [] == commands(app, capsys)
    app.run()
    obey(app, folder, commands(app, capsys))
    assert set(NAMES) == applied(app)


def test_checksums_are_those_of_the_files(settled: App, folder: Path) -> None:
    """Each checksum is the SHA-256 of the file's bytes, whatever they are."""
    (folder / REDESIGN / "migration.sql").write_bytes(b"SELECT 1;\r\n-- \xef\xbb\xbf\xff\n")
    assert 0 == resolve_all(settled, folder)
    assert {(name, checksum_of(folder, name)) for name in NAMES} == set(
        settled.query(
            "SELECT migration_name, checksum FROM _prisma_migrations"
            " WHERE logs = '' AND finished_at = started_at AND applied_steps_count = 0"
        )
    )


def test_names_with_other_timestamps(
    settled: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A migration is known by the part after its timestamp, and recorded by its whole name."""
    names = [f"2025010{n}120000_{name.partition('_')[2]}" for n, name in enumerate(NAMES)]
    folder = folder_with(tmp_path, *names)
    settled.do(APPLIED, "0" * 64, REDESIGN)
    assert 0 == settled.command("status")
    said = capsys.readouterr().out
    assert f"Prisma: {REDESIGN}  applied" in said
    assert (
        "not recorded as applied: add_persona_id_to_conversation_history, "
        "finalize_persona_id_migration\n" in said
    )
    assert 0 == resolve_all(settled, folder)
    assert {REDESIGN, *names} == applied(settled)


def test_the_parent_folder_will_do(settled: App, folder: Path) -> None:
    """--prisma-dir takes prisma/migrations, and prisma with migrations in it."""
    assert 0 == settled.command("resolve", "--applied", END, "--prisma-dir", str(folder.parent))
    assert 0 == resolve_all(settled, folder.parent)
    assert set(NAMES) == applied(settled)


def test_a_wrong_folder_is_refused(
    settled: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is not there, is empty, is another app's, is broken, or is ambiguous."""
    (tmp_path / "empty").mkdir()
    broken = folder_with(tmp_path / "broken", *NAMES)
    (broken / END / "migration.sql").unlink()
    twice = folder_with(tmp_path / "twice", *NAMES, f"2025{END[4:8]}000000_{END[15:]}")
    for wrong, why in {
        tmp_path / "nowhere": "there are no migrations in",
        tmp_path / "empty": "there are no migrations in",
        folder_with(tmp_path / "other", "20250101000000_users"): "holds none of",
        broken: f"there is no {broken / END / 'migration.sql'}",
        twice: "differ in their timestamps only",
    }.items():
        assert 2 == resolve_all(settled, wrong)
        assert why in capsys.readouterr().err
        assert [] == history(settled)


def test_names_are_written_only_for_folders_that_exist(
    settled: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A version of the app without a migration gets no row of it."""
    assert 0 == resolve_all(settled, folder_with(tmp_path, COLUMN))
    assert [(COLUMN, "applied")] == history(settled)
    assert f"{END.partition('_')[2]}: not in the folder" in capsys.readouterr().out


def test_a_changed_file_is_named(
    settled: App, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a row whose checksum Prisma would call modified the rest of the history is still right.

    Line ends do not count, nor do the zeros that early versions of Prisma left out.
    """
    script = folder / COLUMN / "migration.sql"
    script.write_bytes(script.read_bytes().replace(b"\n", b"\r\n"))
    windows = checksum_of(folder, COLUMN)
    script.write_bytes(script.read_bytes().replace(b"\r\n", b"\n"))
    digest = bytes.fromhex(checksum_of(folder, END))
    settled.do(APPLIED, windows, COLUMN)
    settled.do(APPLIED, "".join(f"{byte:x}" for byte in digest), END)
    settled.do(APPLIED, "0" * 64, REDESIGN)
    assert 0 == resolve_all(settled, folder)
    said = capsys.readouterr().out.splitlines()
    assert [f"{name}: applied already" for name in (COLUMN, END)] == said[1:]
    assert said[0].startswith(f"{REDESIGN}: applied already. Prisma warns")
    assert 3 == len(history(settled))


def test_a_failed_deployment_is_named_and_settled(
    settled: App, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A deployment that died on the redesign blocks Prisma; `status` says so, --all settles it."""
    settled.do(FAILED, REDESIGN)
    assert 0 == settled.command("status")
    said = capsys.readouterr().out
    assert f"Prisma: {REDESIGN} failed, and `prisma migrate deploy` stops there (P3009)" in said
    assert f"Prisma: {REDESIGN}  " in said
    obey(settled, folder, commands(settled, capsys))
    assert [(REDESIGN, "rolled back"), *((name, "applied") for name in NAMES)] == history(settled)
    assert [] == commands(settled, capsys)


def test_a_deployment_that_died_in_the_last_migration_is_finished(
    app: App, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where Prisma did half of the last migration before its time, a run and --all finish it."""
    app.run(Phase.BACKFILL)
    expected = app.expected()
    for name in (REDESIGN, COLUMN):
        assert 0 == app.command("resolve", "--applied", name, "--prisma-dir", str(folder))
    said = capsys.readouterr().out
    assert f"Prisma: {REDESIGN} counts as applied, but the database does not hold it" in said
    for half in (
        "ALTER TABLE conversation_history ALTER persona_id SET NOT NULL",
        "ALTER TABLE conversation_history DROP CONSTRAINT conversation_history_user_id_fkey",
        "DROP INDEX conversation_history_user_id_idx",
    ):
        app.do(half)
    app.do(FAILED, END)
    assert [f"memsync migrate resolve --rolled-back {name}" for name in (REDESIGN, END)] == (
        commands(app, capsys)
    )
    assert Stage.CONTRACTED == app.run()
    assert expected == app.personas()
    obey(app, folder, commands(app, capsys))
    assert set(NAMES) == applied(app)
    assert (END, "rolled back") in history(app)
    assert [] == commands(app, capsys)


def test_several_rows_of_one_name(
    settled: App, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failed, rolled back and applied rows of one name end as one that is applied."""
    for _ in range(2):
        settled.do(FAILED, COLUMN)
        assert 0 == settled.command("resolve", "--rolled-back", COLUMN)
    settled.do(APPLIED, checksum_of(folder, COLUMN), COLUMN)
    settled.do(FAILED, COLUMN)
    assert 0 == settled.command("status")
    assert f"Prisma: {COLUMN}  failed" in capsys.readouterr().out
    assert 0 == resolve_all(settled, folder)
    assert ["rolled back", "rolled back", "applied", "rolled back"] == [
        state for name, state in history(settled) if name == COLUMN
    ]
    settled.do(FAILED, COLUMN)
    assert 0 == settled.command("resolve", "--rolled-back", COLUMN)
    assert COLUMN in applied(settled)


def test_a_failed_migration_of_the_app_is_shown(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any failed migration stops the next deployment, so `status` shows it and how to mend it."""
    name = "20251030120000_add_avatars copy"
    app.do(FAILED, name)
    assert 0 == app.command("status")
    said = capsys.readouterr().out
    assert f"Prisma: {name}  failed" in said
    assert f"  do: memsync migrate resolve --rolled-back '{name}'" in said
    assert 0 == app.command("resolve", "--rolled-back", name)
    assert [(name, "rolled back")] == history(app)


def test_what_the_database_holds_is_not_taken_back(
    settled: App, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--rolled-back of an applied one: refused where the catalog has it or cannot tell."""
    assert 0 == resolve_all(settled, folder)
    before = history(settled)
    assert 2 == settled.command("resolve", "--rolled-back", END)
    assert "and the database holds it" in capsys.readouterr().err
    assert 2 == settled.command("resolve", "--rolled-back", "20251017195524_add_pending_memories")
    assert before == history(settled)


def test_taken_back_it_looks_as_if_prisma_had_done_it(settled: App, folder: Path) -> None:
    """An applied row that is taken back is not finished, or Prisma refuses --applied for ever."""
    assert 0 == resolve_all(settled, folder)
    settled.back(Phase.BACKFILL)
    assert 0 == settled.command("resolve", "--rolled-back", END)
    assert [(None, True)] == settled.query(
        "SELECT finished_at, rolled_back_at IS NOT NULL FROM _prisma_migrations"
        " WHERE migration_name = %s",
        END,
    )


def test_a_later_change_of_the_app_is_no_way_back(
    settled: App, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column that a later version of the app brings back does not undo the redesign."""
    assert 0 == resolve_all(settled, folder)
    settled.do("ALTER TABLE llm_configs ADD COLUMN is_default boolean NOT NULL DEFAULT false")
    assert [] == commands(settled, capsys)


def test_of_many_at_once_each_name_gets_one_row(settled: App, folder: Path) -> None:
    """Several resolve at once: each succeeds, or finds the lock taken and writes nothing."""
    with ThreadPoolExecutor(6) as pool:
        ended = list(pool.map(lambda _: resolve_all(settled, folder), range(12)))
    assert {0} <= set(ended) <= {0, 11}
    assert sorted((name, "applied") for name in NAMES) == sorted(history(settled))


def test_nothing_is_written_while_prisma_migrates(settled: App, folder: Path) -> None:
    """While Prisma holds its lock nothing is written."""
    with settled.connected() as prisma:
        prisma.execute("SELECT pg_advisory_lock(72707369)")
        assert 11 == resolve_all(settled, folder)
    assert [] == history(settled)


def test_a_table_in_another_schema(new_app: NewApp, folder: Path) -> None:
    """The history that is written is the one on the search path, as the app's tables are."""
    app = new_app()
    app.do("CREATE SCHEMA app")
    for (table,) in app.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        app.do(f"ALTER TABLE public.{table} SET SCHEMA app")
    there = at_url(app, app.url_with("options=-csearch_path%3Dapp"))
    there.run()
    assert 0 == resolve_all(there, folder)
    assert set(NAMES) == applied(there)
    assert [(None,)] == app.query("SELECT to_regclass('public._prisma_migrations')")


def test_a_role_without_rights(
    settled: App, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A role that may not write is told so; what it may not read is said to be unknown."""
    reads = (
        "GRANT USAGE ON SCHEMA public, memsync TO {}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public, memsync TO {}",
    )
    with role(settled, *reads) as url:
        assert 16 == resolve_all(at_url(settled, url), folder)
        assert 0 == at_url(settled, url).command("status")
    assert "resolve --all" in capsys.readouterr().out
    with role(settled, *reads, "REVOKE SELECT ON _prisma_migrations FROM {}") as url:
        assert 0 == at_url(settled, url).command("status")
        assert "_prisma_migrations" in capsys.readouterr().out
        assert 16 == resolve_all(at_url(settled, url), folder)
    assert [] == history(settled)


INDEXES: LiteralString = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
THROUGH = ("run", "--unresolved", "create", "--quiet-minutes", "0", "--backup-confirmed", "test")


def test_run_ends_with_the_command(
    app: App,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`run` prints the exact command, with the folder where it is known, until it was run."""
    monkeypatch.chdir(folder)
    assert 0 == app.command(*THROUGH)
    placeholder = "  do: memsync migrate resolve --all --prisma-dir PATH/TO/prisma/migrations"
    finalize = "next: memsync migrate finalize"
    *_, do, _first, then = capsys.readouterr().out.splitlines()
    assert [placeholder, finalize] == [do, then]
    monkeypatch.chdir(folder.parent.parent)
    assert 0 == app.command(*THROUGH)
    told = capsys.readouterr().out.splitlines()[-3]
    assert "  do: memsync migrate resolve --all --prisma-dir prisma/migrations" == told
    obey(app, folder, [told.removeprefix("  do: ")])
    capsys.readouterr()
    assert 0 == app.command(*THROUGH)
    assert "Prisma" not in capsys.readouterr().out
    assert 0 == app.command("rollback", "--to", "backfill")
    assert f"  do: memsync migrate resolve --rolled-back {END}" in capsys.readouterr().out


def test_without_prisma_run_says_nothing_of_it(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """An app without Prisma hears nothing of it; one whose history is empty does."""
    app.do("DELETE FROM _prisma_migrations")
    assert 0 == app.command(*THROUGH)
    assert "resolve --all" in capsys.readouterr().out
    app.do("DROP TABLE _prisma_migrations")
    assert 0 == app.command(*THROUGH)
    assert "Prisma" not in capsys.readouterr().out


def test_lines_for_the_schema(
    app: App,
    new_app: NewApp,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """--show-schema prints the line and the migration by which Prisma knows memsync's index."""
    assert 0 == app.command("resolve", "--show-schema")
    assert "memsync left no index that Prisma must be told of\n" == capsys.readouterr().out
    app.run()
    capsys.readouterr()
    assert 0 == app.command("resolve", "--show-schema")
    said = capsys.readouterr().out
    assert (
        "  @@index([channelId, personalityId, personaId, createdAt(sort: Desc), id(sort: Desc)],"
        f' map: "{RETRIEVAL_INDEX}")\n'
    ) in said
    assert 0 == app.command("resolve", "--show-schema", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["schema"][0] in said
    assert all(statement in said for statement in found["sql"])
    screen = on_terminal(
        40, lambda: app.command("resolve", "--show-schema"), monkeypatch
    ).splitlines()
    assert said.splitlines() == screen  # a line that is wrapped cannot be copied
    before = {name for name, _ in app.query(INDEXES)}
    developer = new_app()
    developer.do("ALTER TABLE conversation_history ADD COLUMN persona_id uuid")
    for database in (app, developer):
        with database.connected() as connection:
            for statement in found["sql"] * 2:
                connection.execute(statement.encode())
    listed = [set(each.query(INDEXES)) for each in (app, developer)]
    assert before == {name for name, _ in listed[0]}
    made = [{each for each in names if each[0] == RETRIEVAL_INDEX} for names in listed]
    assert made[0] == made[1]
    assert 1 == len(made[0])
