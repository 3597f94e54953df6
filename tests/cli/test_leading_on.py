"""Tests that each `next:` of reconcile, check and rules leads on, typed as it is printed."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from memsync import reconcile
from memsync.errors import StoreUnreachable
from memsync.model.ids import copied_point_id
from memsync.reconcile import relayout, restoring, retirement
from memsync.reconcile.findings import Grade, Severity
from memsync.reconcile.plans import Plan
from memsync.reconcile.rules import RULES
from memsync.settings import Settings
from memsync.stores.history.exchanges import exchanges_in_order
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.repairs import Repairs
from memsync.stores.postgres import Postgres
from memsync.stores.vectors import open_vectors
from memsync.stores.vectors.protocol import scan
from support.cli import EMBEDDERS, NO_QDRANT, Ran, on, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memsync.reconcile.findings import Audit
    from memsync.stores.vectors.protocol import VectorStore

SHARED = ("reconcile", "layout", "set", "shared")
BACK = ("reconcile", "layout", "set", "per-persona")
RETIRE = [*SHARED, "--retire"]


def nexts(ran: Ran) -> list[list[str]]:
    """The commands of all lines `next:`, in their order."""
    lines = [line for line in ran.out.splitlines() if line.startswith("next: ")]
    return [shlex.split(line.removeprefix("next: memsync ")) for line in lines]


@contextlib.contextmanager
def opened(app: str, qdrant: str) -> Iterator[VectorStore]:
    """The vector store, while no command has it."""
    settings = Settings(postgres_url=app, qdrant_url=qdrant, embedder=f"{EMBEDDERS}:embed")
    with contextlib.closing(open_vectors(settings)) as vectors:
        yield vectors


@pytest.fixture
def deployed(app: str, qdrant: str) -> str:
    """An app with a memory of every exchange in its own layout; the URL of its vector store."""
    settings = Settings(postgres_url=app, qdrant_url=qdrant, embedder=f"{EMBEDDERS}:embed")
    with (
        opened(app, qdrant) as vectors,
        Postgres.open(app) as postgres,
        postgres.session() as session,
    ):
        ltm = LongTermMemory(vectors, settings, layout=Layout.PER_PERSONA)
        anchors = [each.anchor_id for each in exchanges_in_order(session)]
        ltm.project(session, anchors, lambda *_: {})
    return qdrant


def spoil(app: str, qdrant: str) -> None:
    """Take a memory away, double one, and give one a vector of zeros."""
    with opened(app, qdrant) as vectors:
        home = max(vectors.collections(), key=vectors.count)
        lost, doubled, blank, *_ = scan(vectors, home, vectors=True)
        vectors.delete(home, [lost.id])
        again = replace(doubled, id=copied_point_id("x", str(doubled.id)))
        vectors.upsert(home, [again, replace(blank, vector=(0.0,) * 4)])


# ---------------------------------------------------------------------- plans


def test_the_plans_of_check_are_typed_in_their_order(app: str, deployed: str) -> None:
    """What is safe, vectors, what removes: each plan has a file of its own, and all are done."""
    spoil(app, deployed)
    found = on(app, deployed, "check", "--verify-vectors", "all")
    plans = nexts(found)
    assert (1, 3) == (found.status, len(plans))
    assert ["reconcile", "plan"] == plans[0]
    assert [n for n, each in enumerate(plans) if "--unsafe" in each] == [2]

    applies = []
    for each in plans:
        made = on(app, deployed, *each)
        assert (0, "") == (made.status, made.err)
        applies += nexts(made)
    assert 3 == len({file for *_, file in applies})
    for each in applies:
        assert 0 == on(app, deployed, *each).status
    assert 0 == on(app, deployed, "check", "--verify-vectors", "all").status


def test_the_same_lines_lead_on_the_next_time(app: str, deployed: str) -> None:
    """A plan that was carried out whole, or that nobody began, gives its file to the next one."""
    for _ in range(2):
        spoil(app, deployed)
        for each in (["plan"], ["plan", "--unsafe", "--out", "plan-unsafe.json"]):
            made = on(app, deployed, "reconcile", *each)
            assert (0, "") == (made.status, made.err)
            for apply in nexts(made):
                assert 0 == on(app, deployed, *apply).status
    spoil(app, deployed)
    assert "replaced" not in on(app, deployed, "reconcile", "plan").out
    again = on(app, deployed, "reconcile", "plan")
    assert (0, True) == (again.status, "of which no run is known: it is replaced" in again.out)


def test_no_other_file_is_replaced(app: str, deployed: str) -> None:
    """A plan that was begun, one for another database and a file that is no plan stay."""
    spoil(app, deployed)
    assert 0 == on(app, deployed, "reconcile", "plan", "--unsafe").status
    Path("elsewhere.json").write_text(_for_another_database(Path("plan.json").read_text()))
    Path("notes.json").write_text("my notes")
    assert 0 == on(app, deployed, "reconcile", "apply", "plan.json", "--limit", "1").status
    for file, why in (
        ("plan.json", "begun, and"),
        ("elsewhere.json", "another database"),
        ("notes.json", "no plan"),
    ):
        kept = Path(file).read_bytes()
        again = on(app, deployed, "reconcile", "plan", "--out", file)
        assert (2, True, kept) == (again.status, why in again.err, Path(file).read_bytes()), file
    assert "`memsync reconcile apply plan.json`" in on(app, deployed, "reconcile", "plan").err


def test_a_plan_that_was_begun_during_the_audit_stays(
    app: str, deployed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan says that it was not begun until it is replaced, not until the audit begins."""
    spoil(app, deployed)
    for file in ("plan.json", "begun.json"):
        assert 0 == on(app, deployed, "reconcile", "plan", "--unsafe", "--out", file).status
    assert 0 == on(app, deployed, "reconcile", "apply", "begun.json", "--limit", "1").status
    real = reconcile.audit

    def audit(*args: Any, **options: Any) -> Audit:
        shutil.copy("begun.json", "plan.json")
        return real(*args, **options)

    monkeypatch.setattr(reconcile, "audit", audit)
    again = on(app, deployed, "reconcile", "plan")
    assert (2, True) == (again.status, "plan.json has a plan that was begun, and" in again.err)
    assert Path("begun.json").read_bytes() == Path("plan.json").read_bytes()


def _for_another_database(saved: str) -> str:
    """The plan in this text, for a database that is not here."""
    plan = Plan.from_json(saved, "plan.json")
    target = replace(plan.target, instance_id=uuid4())
    return replace(plan, plan_id=uuid4(), target=target).to_json()


def test_a_plan_at_a_time(app: str, deployed: str) -> None:
    """Following the first `next:` of each command mends both kinds, too."""
    spoil(app, deployed)
    typed: list[str] = []
    command = ["check", "--verify-vectors", "all"]
    while command:
        assert len(typed) < 12, typed
        typed.append(" ".join(command))
        ran = on(app, deployed, *command, *(["--verify-vectors", "all"] * (command == ["check"])))
        assert "" == ran.err
        command = next(iter(nexts(ran)), [])
    assert "check" == typed[-1]
    assert 0 == ran.status
    assert 10 == len(typed)


# ---------------------------------------------------------------------- rules


@pytest.mark.parametrize("layout", Layout)
def test_no_fact_names_a_plan(layout: Layout) -> None:
    """Of all rules: one whose findings are in no plan in a layout names none there."""
    more = "_per_persona" if layout is Layout.PER_PERSONA else ""
    told = {each["code"]: each for each in run("rules", "--json").json()["rules"]}
    planning = set()
    for rule in RULES:
        command, grade = (
            str(told[rule.code][f"{name}{more}"]) for name in ("next_command", "grade")
        )
        is_plan = command.startswith("memsync reconcile plan")
        assert is_plan is (grade != "report-only" and not rule.next_command), rule.code
        assert not (is_plan and rule.severity_in(layout) is Severity.INFO), rule.code
        if is_plan:
            planning.add(rule.name)
    in_shared_alone = {"missing-persona", "foreign-point-id", "vector-drift"}
    assert (in_shared_alone <= planning) is (layout is Layout.SHARED)
    assert {"missing-point", "orphan-point", "vector-zero", "persona-mismatch"} <= planning


def test_rules_says_where_a_plan_repairs() -> None:
    """The text names the layout, and the grade that `check` shows of the finding."""
    for rule in RULES:
        lines = run("rules", rule.code).out.splitlines()
        named = [
            n for n, line in enumerate(lines) if line.startswith("next: memsync reconcile plan")
        ]
        both = {rule.grade_in(layout) for layout in Layout}
        if Grade.REPORT_ONLY in both and len(both) > 1:
            assert [f"where the repair is {rule.grade}, in the shared layout:"] == [
                lines[n - 1] for n in named
            ]
        elif named:
            assert [f"where the repair is {rule.grade}:"] == [lines[n - 1] for n in named]
        else:
            assert both == {Grade.REPORT_ONLY}


# ---------------------------------------------------------------------- runs


def repaired(app: str, qdrant: str, *more: str) -> str:
    """The id of a run that repaired what was spoilt."""
    made = on(app, qdrant, "--json", "reconcile", "plan", "--force", *more).json()
    assert 0 == on(app, qdrant, "reconcile", "apply", "plan.json").status
    return str(made["plan_id"])


def listed(app: str, qdrant: str) -> dict[str, dict[str, object]]:
    """The runs, as JSON, by their ids."""
    runs = on(app, qdrant, "--json", "reconcile", "runs").json()["runs"]
    return {each["run_id"]: each for each in runs}


def test_runs_marks_the_run_of_undo_not_possible(app: str, deployed: str) -> None:
    """The command that the finding names says which run it is, and what is lost."""
    spoil(app, deployed)
    whole = repaired(app, deployed)
    lost = repaired(app, deployed, "--unsafe")
    with psycopg.connect(app) as connection:
        connection.execute("DELETE FROM memsync.quarantine WHERE plan_id = %s", [lost])
    [command] = nexts(on(app, deployed, "check"))
    shown = on(app, deployed, *command)
    lines = shown.out.splitlines()

    assert 0 == shown.status
    at = next(n for n, line in enumerate(lines) if line.startswith(lost))
    assert "    to be undone: in part; 1 copy is missing" == lines[at + 2]
    assert 1 == shown.out.count("to be undone")
    runs = listed(app, deployed)
    assert ("in part", "1 copy is missing") == (runs[lost]["undo"], runs[lost]["why_not"])
    assert ("whole", None) == (runs[whole]["undo"], runs[whole]["why_not"])


def test_runs_of_another_layout_and_of_another_store(app: str, deployed: str) -> None:
    """An undo refuses them, so they are marked before somebody needs one."""
    spoil(app, deployed)
    run_id = repaired(app, deployed, "--unsafe")
    with psycopg.connect(app) as connection:
        connection.execute("UPDATE memsync.layout SET layout = 'shared'")
    shown = on(app, deployed, "reconcile", "runs")
    assert "to be undone: no; it was made in the per-persona layout, which is not" in shown.out
    with psycopg.connect(app) as connection:
        connection.execute("UPDATE memsync.layout SET layout = 'per-persona'")
    assert "whole" == listed(app, deployed)[run_id]["undo"]
    assert "to be undone: no; it was made on " in on(app, ":memory:", "reconcile", "runs").out


def test_runs_without_the_vector_store(app: str, deployed: str) -> None:
    """What Postgres knows is told, and that the rest was not looked at."""
    spoil(app, deployed)
    run_id = repaired(app, deployed)
    for ran in (
        on(app, NO_QDRANT, "reconcile", "runs"),
        run("--postgres-url", app, "reconcile", "runs"),
    ):
        assert (0, "") == (ran.status, ran.err)
        assert run_id in ran.out
        assert "not looked at: the collections of the runs: " in ran.out


@pytest.mark.usefixtures("per_persona")
def test_what_became_of_every_action(app: str, qdrant: str) -> None:
    """Done, done before by another run, set aside, left: nothing is shown as open that is done."""
    on(app, qdrant, "reconcile", "plan", "--out", "every.json")
    on(app, qdrant, "reconcile", "plan", "--out", "again.json")
    actions = on(app, qdrant, "--json", "reconcile", "show", "again.json").json()["actions"]
    number = len(actions)
    assert 0 == on(app, qdrant, "reconcile", "apply", "every.json", "--limit", "3").status
    with psycopg.connect(app) as connection:
        connection.execute(
            "UPDATE conversation_history SET content = 'x' WHERE id = %s",
            [actions[-1]["anchor_id"]],
        )
    ran = on(app, qdrant, "reconcile", "apply", "again.json", "--limit", "2")
    assert 3 == ran.status

    def told() -> list[str]:
        lines = on(app, qdrant, "reconcile", "runs").out.splitlines()
        assert all(len(line) <= 80 for line in lines)
        return [line.strip() for line in lines if " done" in line]

    again, every = told()
    assert f"3 of {number} actions done, {number - 3} left" == every
    left = number - 6
    assert f"2 of {number} actions done, 3 done before, 1 set aside, {left} left" == again
    assert 3 == on(app, qdrant, "reconcile", "apply", "again.json").status
    assert f"{number - 4} of {number} actions done, 3 done before, 1 set aside" == told()[0]
    [run_id, _] = listed(app, qdrant)
    fields = listed(app, qdrant)[run_id]
    assert [number, number - 4, 0, 3, 1, 0] == [
        fields[name] for name in ("actions", "done", "undone", "done_before", "set_aside", "left")
    ]
    # What this run did itself is not told as done before, also when it is typed again.
    assert 3 == on(app, qdrant, "reconcile", "apply", "again.json").status
    assert fields["done_before"] == listed(app, qdrant)[run_id]["done_before"]


# ---------------------------------------------------------------------- layouts


def cut(*_: object, **__: object) -> None:
    """The moment at which a change is cut short."""
    raise StoreUnreachable("cut short")


def finished(app: str, qdrant: str, command: list[str], half_done: str) -> None:
    """`layout` says what is half done and names the command, which ends it."""
    shown = on(app, qdrant, "reconcile", "layout")
    assert [command] == nexts(shown), shown.out
    assert "was begun and did not end" in shown.out
    told = on(app, qdrant, "--json", "reconcile", "layout").json()
    assert (half_done, f"memsync {shlex.join(command)}") == (told["half_done"], told["next"])
    assert command in nexts(on(app, qdrant, "check"))
    done = on(app, qdrant, *command)
    assert 0 == done.status, done
    told = on(app, qdrant, "--json", "reconcile", "layout").json()
    assert told["half_done"] is None
    assert command != told["next"]


@pytest.mark.parametrize("again", [False, True], ids=["first", "second"])
def test_copying_that_was_cut_short(
    app: str, deployed: str, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    """The record still says per-persona, and part of the memories lie in the shared collection;
    also at the second time, when that one stands already.
    """
    if again:
        assert 0 == on(app, deployed, *SHARED, "--app-stopped").status
        assert 0 == on(app, deployed, *BACK).status
    with monkeypatch.context() as patch:
        patch.setattr(relayout, "change", cut)
        assert 0 != on(app, deployed, *SHARED, "--app-stopped").status
    finished(app, deployed, [*SHARED, "--app-stopped"], "copying")
    assert [RETIRE] == nexts(on(app, deployed, "reconcile", "layout"))


@pytest.mark.parametrize("where", ["between", "drop", "noted"])
def test_a_retirement_that_was_cut_short(
    app: str, deployed: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With collections left, between two of them, and where the last one is gone and nothing could
    note that.
    """
    assert 0 == on(app, deployed, *SHARED, "--app-stopped").status
    with opened(app, deployed) as vectors:
        last = max(name for name in vectors.collections() if name.startswith("persona-"))
    retire_one = retirement._retire_one

    def last_fails(session: object, ltm: object, run_id: object, name: str, *rest: object) -> None:
        retire_one(session, ltm, run_id, name, *rest)  # type: ignore[arg-type]
        if where == "between":
            cut()
        if name == last and where == "noted":
            with psycopg.connect(app) as connection:
                connection.execute(
                    "UPDATE memsync.retired SET dropped_at = NULL WHERE collection = %s", [last]
                )
            cut()

    def drop_fails(repairs: Repairs, name: str) -> None:
        if name == last:
            cut()
        drop(repairs, name)

    drop = Repairs.drop
    with monkeypatch.context() as patch:
        patch.setattr(retirement, "_retire_one", last_fails)
        if where == "drop":
            patch.setattr(Repairs, "drop", drop_fails)
        assert 0 != on(app, deployed, *RETIRE).status
    finished(app, deployed, RETIRE, "retiring")
    assert [] == nexts(on(app, deployed, "reconcile", "layout"))


@pytest.mark.parametrize("where", ["first", "restored", "copied", "never retired"])
def test_a_way_back_that_was_cut_short(
    app: str, deployed: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first collection, after the last, and right before the record is changed; without a
    retirement, too.
    """
    assert 0 == on(app, deployed, *SHARED, "--app-stopped").status
    if where != "never retired":
        assert 0 == on(app, deployed, *RETIRE).status
    with monkeypatch.context() as patch:
        if where in {"copied", "never retired"}:
            patch.setattr(relayout, "change", cut)
        elif where == "restored":
            patch.setattr(relayout, "_until_nothing_is_new", cut)
        else:
            patch.setattr(restoring._Restoring, "_restore_points", cut)
        assert 0 != on(app, deployed, *BACK).status
    finished(app, deployed, [*BACK], "returning")
    assert [] == nexts(on(app, deployed, "reconcile", "layout"))


def test_a_way_back_that_was_given_up(
    app: str, deployed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who retires instead, or says that the layout stays, has ended it."""
    assert 0 == on(app, deployed, *SHARED, "--app-stopped").status
    shown = on(app, deployed, "reconcile", "layout")
    assert [RETIRE] == nexts(shown)
    assert f"the way back: `memsync {' '.join(BACK)}`" in shown.out
    assert 0 == on(app, deployed, *RETIRE).status
    with monkeypatch.context() as patch:
        patch.setattr(relayout, "change", cut)
        assert 0 != on(app, deployed, *BACK).status
    assert 0 == on(app, deployed, *RETIRE).status
    told = on(app, deployed, "--json", "reconcile", "layout").json()
    assert (None, None) == (told["half_done"], told["next"])
    with monkeypatch.context() as patch:
        patch.setattr(relayout, "change", cut)
        assert 0 != on(app, deployed, *BACK).status
    assert 0 == on(app, deployed, *SHARED).status
    assert [RETIRE] == nexts(on(app, deployed, "reconcile", "layout"))
    assert 0 == on(app, deployed, *BACK).status
    assert 0 == on(app, deployed, *SHARED, "--app-stopped").status
    assert [RETIRE] == nexts(on(app, deployed, "reconcile", "layout"))


def test_an_old_version_that_writes_after_retirement_is_no_way_back(
    app: str, deployed: str
) -> None:
    """Its points have ids that were never retired."""
    assert 0 == on(app, deployed, *SHARED, "--app-stopped").status
    assert 0 == on(app, deployed, *RETIRE).status
    with psycopg.connect(app) as connection:
        [name] = connection.execute("SELECT min(collection) FROM memsync.retired").fetchone() or [
            ""
        ]
    with opened(app, deployed) as vectors:
        vectors.create(name, 4, {})
        point = next(iter(scan(vectors, "memories", vectors=True)))
        vectors.upsert(name, [replace(point, id=copied_point_id("new", str(point.id)))])
    told = on(app, deployed, "--json", "reconcile", "layout").json()
    assert (None, f"memsync {' '.join(RETIRE)}") == (told["half_done"], told["next"])
