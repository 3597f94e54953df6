"""Tests `memsync reconcile`: the plan files that it refuses, and its JSON output."""

from pathlib import Path

import psycopg
import pytest

from support.cli import NOWHERE, THROUGH, on

pytestmark = pytest.mark.usefixtures("per_persona")


@pytest.fixture(autouse=True)
def named_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the layout: a store without memories shows none."""
    monkeypatch.setenv("MEMSYNC_LAYOUT", "per-persona")


@pytest.mark.parametrize("text", ["{}", "[]", "", "not json", '{"schema_version": 9}', "\udcff"])
def test_file_that_is_no_plan_is_2(text: str, tmp_path: Path) -> None:
    """A file that is not a plan is refused, and the message names it."""
    file = tmp_path / "plan.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))

    ran = on(NOWHERE, ":memory:", "reconcile", "apply", str(file))

    assert (2, "") == (ran.status, ran.out)
    assert "plan.json" in ran.err


def test_plan_that_cannot_be_saved_is_2(app: str, qdrant: str, tmp_path: Path) -> None:
    """When a plan file cannot be written, the message names it."""
    ran = on(app, qdrant, "reconcile", "plan", "--out", str(tmp_path / "none" / "plan.json"))

    assert (2, "") == (ran.status, ran.out)
    assert "plan.json" in ran.err


def test_plan_of_another_database_is_13(
    app: str, legacy_app: str, qdrant: str, tmp_path: Path
) -> None:
    """A plan is carried out on the database that it was made for, or not at all."""
    plan = str(tmp_path / "plan.json")
    assert 0 == on(app, qdrant, "reconcile", "plan", "--out", plan).status
    assert 0 == on(legacy_app, qdrant, *THROUGH).status

    ran = on(legacy_app, qdrant, "reconcile", "apply", plan)

    assert (13, "") == (ran.status, ran.out)
    assert "database" in ran.err


def test_json_before_a_subcommand_counts(app: str, qdrant: str) -> None:
    """`memsync reconcile --json plan` prints JSON or refuses the option; it never ignores it."""
    ran = on(app, qdrant, "reconcile", "--json", "plan")

    assert 2 == ran.status or ran.json()


def test_plan_show_apply_and_undo(app: str, qdrant: str, tmp_path: Path) -> None:
    """A plan is shown, carried out by parts, listed, and taken back; each command says the next."""
    layout = "per-persona"
    file = tmp_path / "my plan.json"
    made = on(app, qdrant, "reconcile", "plan", "--out", str(file))
    assert f"next: memsync reconcile apply '{file}'" in made.out
    assert 0o600 == file.stat().st_mode & 0o777

    shown = on(app, qdrant, "reconcile", "show", str(file))
    whole = on(app, qdrant, "--json", "reconcile", "show", str(file)).json()
    number = len(whole["actions"])
    assert number > 4
    assert 0 == shown.status
    for word in (f"put     {number:>6,}  missing-point", layout, "cli_embedders:embed/", "persona"):
        assert word in shown.out, shown.out
    assert {"put": {"missing-point": number}} == whole["counts"]
    assert (0, {}, layout) == (whole["only_copies"], whole["left"], whole["target"]["layout"])

    first = on(app, qdrant, "reconcile", "apply", str(file), "--limit", "3")
    said = [
        "3 actions carried out",
        f"to take it back: memsync reconcile undo {whole['plan_id']}",
        f"{number - 3} actions are left",
    ]
    more = f"next: memsync reconcile apply '{file}' --limit 3"
    assert (0, [*said, more]) == (first.status, first.out.splitlines())
    rest = on(app, qdrant, "--json", "reconcile", "apply", str(file)).json()
    assert (number - 3, 3, 0) == (rest["done"], rest["done_before"], rest["left"])
    assert 0 == on(app, qdrant, "check").status
    done = on(app, qdrant, "reconcile", "apply", str(file)).out.splitlines()[0]
    assert f"0 actions carried out, {number} were done before" == done
    assert 0 == on(app, qdrant, "reconcile", "plan", "--out", str(file)).status
    assert "the plan has no actions: there is nothing to repair\nnext: memsync check\n" == (
        on(app, qdrant, "reconcile", "apply", str(file)).out
    )

    run = rest["run_id"]
    listed = on(app, qdrant, "reconcile", "runs")
    assert run in listed.out
    assert f"{number} of {number}" in listed.out
    assert "1 run; each is kept for 30 days after its last work" in listed.out
    undone = on(app, qdrant, "reconcile", "undo", run)
    assert (0, f"{number} points undone") == (undone.status, undone.out.splitlines()[0])
    again = on(app, qdrant, "reconcile", "undo", run)
    assert (0, "nothing was left to undo") == (again.status, again.out.splitlines()[0])
    assert 0 == on(app, qdrant, "--json", "reconcile", "undo", run).json()["done"]
    [kept] = on(app, qdrant, "--json", "reconcile", "runs").json()["runs"]
    assert (run, number, number) == (kept["run_id"], kept["done"], kept["undone"])
    lines = on(app, qdrant, "reconcile", "runs").out.splitlines()
    [at] = [n for n, line in enumerate(lines) if run in line]
    assert f"    {number} of {number} actions done, undone again" == lines[at + 1]
    assert all(len(line) <= 80 for line in lines)
    assert 1 == on(app, qdrant, "check").status


def test_a_plan_for_one_persona(app: str, qdrant: str, tmp_path: Path) -> None:
    """--persona takes that persona's findings alone."""
    every, one = str(tmp_path / "every.json"), str(tmp_path / "one.json")
    on(app, qdrant, "reconcile", "plan", "--out", every)
    actions = on(app, qdrant, "--json", "reconcile", "show", every).json()["actions"]
    persona = actions[0]["persona_id"]
    assert len({each["persona_id"] for each in actions}) > 1
    on(app, qdrant, "reconcile", "plan", "--out", one, "--persona", persona)
    shown = on(app, qdrant, "--json", "reconcile", "show", one).json()
    assert [each for each in actions if each["persona_id"] == persona] == shown["actions"]
    assert 1 == shown["personas"]


def test_a_run_that_is_not_known_is_2(app: str, qdrant: str) -> None:
    """What is no id, and an id of no run, is a mistake of the caller's."""
    for run in ("x", "7b1e4c1e-9f0a-4f5e-8a77-0c3f6d1b2a90"):
        ran = on(app, qdrant, "reconcile", "undo", run)
        assert (2, "") == (ran.status, ran.out)
        assert run in ran.err
    listed = on(app, qdrant, "reconcile", "runs")
    said = "no runs; each is kept for 30 days after its last work"
    assert (0, said) == (listed.status, listed.out.strip())


def test_what_is_set_aside_is_3(app: str, qdrant: str, tmp_path: Path) -> None:
    """The message names the first point and why; --json has every action with its reason."""
    file = str(tmp_path / "plan.json")
    on(app, qdrant, "reconcile", "plan", "--out", file)
    actions = on(app, qdrant, "--json", "reconcile", "show", file).json()["actions"]
    with psycopg.connect(app) as connection:
        connection.execute(
            "UPDATE conversation_history SET content = 'secret' WHERE id = %s",
            [actions[0]["anchor_id"]],
        )
    ran = on(app, qdrant, "reconcile", "apply", file)
    assert (3, "") == (ran.status, ran.out)
    assert f"{len(actions) - 1} actions carried out, 1 set aside" in ran.err
    assert actions[0]["point_id"] in ran.err
    assert "secret" not in ran.err
    told = on(app, qdrant, "--json", "reconcile", "apply", file).failure()
    [aside] = told["actions"]
    assert (actions[0]["point_id"], "missing-point") == (aside["point_id"], aside["reason"])
    assert "plan again" in aside["why"]
