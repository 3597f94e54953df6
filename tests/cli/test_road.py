"""Runs every command in turn, from a legacy app to two stores that agree."""

import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from memsync.demo import story
from support.cli import THROUGH, on

pytestmark = pytest.mark.usefixtures("per_persona")

FINDING = {
    *("code", "name", "severity", "grade", "store", "key", "persona_id", "evidence"),
    *("next_command", "acknowledged", "held_by", "accept_command"),
}
AUDIT = {
    *("schema_version", "ok", "complete", "counts", "findings", "checked", "settling"),
    *("not_looked_at", "left_out", "not_checked", "facts", "layout", "why_layout", "acknowledged"),
    *("not_looked_for", "acknowledged_not_looked_for"),
}


def test_the_whole_road(legacy_app: str, qdrant: str, tmp_path: Path) -> None:
    """With --json every command on the way prints one object, whose keys are the agreed ones."""
    plan = str(tmp_path / "plan.json")

    def ran(*command: str, expected: int = 0) -> dict[str, Any]:
        done = on(legacy_app, qdrant, *command, "--json")
        assert expected == done.status, done.err
        found = done.json()
        assert 2 == found["schema_version"]
        return found

    assert {
        *("schema_version", "ok", "stage", "steps", "rows_estimated", "rows_exact", "bytes_total"),
        *("rows_by_decision", "unresolved", "server_version", "checks", "gates", "first", "next"),
        *("evidence", "redesign", "method", "run"),
    } == set(ran("migrate", "plan", "--evidence", "ignore", expected=14))
    assert not ran("migrate", "verify", expected=1)["ok"]
    reached = ran(*THROUGH)
    assert {"schema_version", "stage", "messages", "seconds", "first", "next"} == set(reached)
    assert ("contracted", "memsync migrate finalize") == (reached["stage"], reached["next"])
    status = ran("migrate", "status")
    assert {
        *("schema_version", "stage", "rows_total", "rows_exact", "filling", "rows_done"),
        *("rows_per_s", "eta_s", "steps", "run", "gates", "prisma", "prisma_unknown"),
        *("prisma_checks", "first", "next"),
    } == set(status)
    assert "contracted" == status["stage"]
    assert {"phase", "what", "done", "left_out"} == set(status["steps"][0])
    proof = ran("migrate", "verify")
    assert {
        *("schema_version", "ok", "stage", "proven", "rows_total", "unique_personas"),
        *("null_persona_ids", "unknown_persona_ids", "wrong_persona_ids"),
        *("decisions_outdated", "problems", "wrong_ids", "checks", "unfinished", "complete"),
    } == set(proof)
    assert proof["ok"]
    assert {
        *("schema_version", "pending", "oldest_s", "held", "held_error", "dead", "dead_error"),
    } == set(ran("sync", "status"))
    audit = ran("reconcile", expected=1)
    assert set(AUDIT) == set(audit)
    counts = {"rows", "points", "archived", "noted", "vectors"}
    reasons = {"why_all_were_read", "why_alone"}
    assert counts | {"by_fingerprint"} | reasons == set(audit["checked"])
    assert FINDING == set(audit["findings"][0])
    assert audit == ran("reconcile", "audit", expected=1)
    made = ran("reconcile", "plan", "--out", plan)
    names = {"schema_version", "plan", "plan_id", "actions", "left", "acknowledged", "spared"}
    assert names == set(made)
    UUID(made["plan_id"])
    applied = ran("reconcile", "apply", plan)
    assert {
        "schema_version": 2,
        "run_id": made["plan_id"],
        "done": made["actions"],
        "done_before": 0,
        "left": 0,
    } == applied
    assert made["actions"] == ran("reconcile", "apply", plan)["done_before"]
    assert {"schema_version": 2, "entries": 0, "memories": 0} == ran("sync", "run")
    assert {"schema_version": 2, "revived": 0} == ran("sync", "retry")
    gate = ran("check")
    assert (True, True, []) == (gate["ok"], gate["complete"], gate["findings"])


def test_the_whole_road_in_words(legacy_app: str, qdrant: str) -> None:
    """Each command's last line says how it went, or what is next; stderr stays empty."""

    def last(*command: str) -> str:
        done = on(legacy_app, qdrant, *command)
        assert "" == done.err
        return done.out.splitlines()[-1]

    assert last("migrate", "plan", "--evidence", "ignore").endswith(
        "run --to backfill --unresolved create --evidence ignore"
    )
    assert "NOT ok" == last("migrate", "verify")
    assert "next: memsync migrate finalize" == last(*THROUGH)
    assert "ok" == last("migrate", "verify")
    assert "next: memsync reconcile plan" == last("reconcile")
    assert last("reconcile", "plan").endswith("next: memsync reconcile apply plan.json")
    assert "next: memsync check" == last("reconcile", "apply", "plan.json")
    assert "clean: both stores agree" == last("reconcile")
    assert "clean: both stores agree" == last("check")
    assert "0 outbox entries drained, 0 memories written" == last("sync", "run")


def test_the_fields_are_those_of_the_document(
    legacy_app: str, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/json.md lists exactly the fields of each command."""
    text = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    monkeypatch.setattr(story, "play", lambda *_: iter(()))
    for name in ("plan", "status", "verify", "init", "demo", "check", "sync", "run"):
        part = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        listed = {
            field
            for line in part.splitlines()
            if line.startswith("| `")
            for field in re.findall(r"`(\w+)`", line.split("|")[1])
        }
        if name in {"init", "demo", "check"}:
            said = on(app, ":memory:", name, "--json").json()
        elif name == "sync":
            said = on(app, ":memory:", "sync", "status", "--json").json()
        elif name == "run":
            said = on(app, ":memory:", "migrate", "run", "--evidence", "ignore", "--json").json()
        else:
            said = on(legacy_app, ":memory:", "migrate", name, "--json").json()
        assert set(said) - {"schema_version"} == listed


def test_the_fields_of_report_files_are_those_of_the_document(app: str) -> None:
    """docs/json.md lists what the files have beside the fields of `check`."""
    text = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    part = text.partition("## report files\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    listed = {field for row in rows for field in re.findall(r"`(\w+)`", row)}
    said = on(app, ":memory:", "check", "--json", "--report", "json=a", "--report", "json-lines=b")
    file = json.loads(Path("a").read_text())
    first = json.loads(Path("b").read_text().splitlines()[0])

    assert listed == set(file) - set(said.json())
    assert listed == set(first) - {"schema_version", "type"}
    assert AUDIT == set(file) - listed


NEED_MORE = {
    *("migrate pause", "migrate resume", "migrate cancel"),
    "migrate resolve --rolled-back NAME",
}
"""The commands that need a run at work, or a migration that failed."""


def test_the_fields_of_the_other_commands(
    app: str, qdrant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/json.md lists exactly the fields of the commands that have no section of their own."""
    text = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    listed = {
        command: set(re.findall(r"`(\w+)`", row.split("|")[2]))
        for row in text.partition("## the others\n")[2].splitlines()
        if row.startswith("| `")
        for command in re.findall(r"`([^`]+)`", row.split("|")[1])
    }
    name = "20251026164500_finalize_persona_id_migration"
    script = tmp_path / "prisma" / "migrations" / name / "migration.sql"
    script.parent.mkdir(parents=True)
    script.write_text("SELECT 1;")

    def run_of_plan() -> str:
        return str(json.loads((tmp_path / "plan.json").read_text())["plan_id"])

    for command in [each for each in listed if each not in NEED_MORE]:
        if command == "reconcile layout":
            # What was undone is missing again, and was acknowledged.
            drop = ("reconcile", "baseline", "drop", "--select", "missing-point")
            assert 0 == on(app, qdrant, *drop).status
        if command == "reconcile layout set shared --app-stopped":
            # What was undone is repaired anew, because a layout is changed only where all is well.
            assert 0 == on(app, qdrant, "reconcile", "plan", "--force").status
            assert 0 == on(app, qdrant, "reconcile", "apply", "plan.json").status
            monkeypatch.delenv("MEMSYNC_LAYOUT")
        typed = command.replace("NAME", name)
        if "RUN" in command:
            typed = typed.replace("RUN", run_of_plan())
        said = on(app, qdrant, *typed.split(), "--json").json()
        assert {"schema_version", *listed.pop(command)} == set(said), command

    assert set(listed) == NEED_MORE
