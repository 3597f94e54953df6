"""A whole night as the runbook has it: memories of the app's own clock, forward, back, forward."""

from __future__ import annotations

import contextlib
import json
import random
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any, LiteralString

from memsync.demo.world import Recipe, World, load_points, make_world
from memsync.model.records import Point
from memsync.settings import Settings
from memsync.stores.vectors import open_vectors
from support.evidence import UNHINDERED, VECTOR, by_evidence, move_on
from support.prisma import COLUMN, NAMES, applied, checksum_of, folder_with

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    import pytest

    from support.app import App

ROWS: LiteralString = (
    "SELECT id, channel_id, personality_id, user_id, role, content, created_at"
    " FROM conversation_history ORDER BY id"
)


def as_deployed(rng: random.Random, point: Point) -> Point:
    """The point as the app really wrote it: by its own clock, some enriched, one in ten missing."""
    payload = dict(point.payload)
    payload["createdAt"] = int(str(payload["createdAt"])) + rng.choice((0, 400, 1_300, 2_900))
    question, newline, answer = str(payload["content"]).partition("\n")
    # Only where no text has a second line, so that the addition stands behind the message.
    if "\n" not in answer and rng.random() < 0.2:
        payload["content"] = f"{question}\n\n[Image: a cat]{newline}{answer}"
    return replace(point, payload=payload)


def remembered(rng: random.Random) -> World:
    world = make_world(Recipe())
    points = {
        name: [as_deployed(rng, point) for point in points if rng.random() < 0.9]
        for name, points in world.points.items()
    }
    return replace(world, points=points)


def test_the_whole_night(
    app: App, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plan, run, resolve, verify, contract, the whole way back, forward again, by commands."""
    folder = folder_with(tmp_path / "prisma", *NAMES)
    qdrant = f"edge:{tmp_path / 'qdrant'}"
    world = remembered(random.Random(seed))
    with contextlib.closing(open_vectors(Settings(qdrant_url=qdrant), create=True)) as store:
        load_points(world, store, lambda texts: [VECTOR] * len(texts))
    then = by_evidence(app, world)
    move_on(app)
    before = app.catalog(), app.query(ROWS)

    def ran(*command: str) -> dict[str, Any]:
        assert 0 == app.command(*command, "--json", qdrant=qdrant), capsys.readouterr().err
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    def verified() -> dict[str, tuple[str, str]]:
        proof = ran("verify")
        assert (True, True) == (proof["ok"], proof["complete"])
        return {each["name"]: (each["state"], each["found"]) for each in proof["checks"]}

    def resolved(*names: str) -> None:
        """Obey each command of `status` about Prisma, then its history says what is true."""
        for _ in NAMES:
            for each in ran("status")["prisma_checks"]:
                line = each["next"].replace("PATH/TO/prisma/migrations", str(folder))
                ran(*shlex.split(line)[2:])
        assert [] == ran("status")["prisma_checks"]
        assert set(names) == applied(app)

    ahead = ran("plan", "--unresolved", "create")
    (kind,) = ahead["evidence"]["kinds"]
    assert sum(map(len, world.points.values())) == kind["points"] == kind["matched"]
    assert 0 == ahead["evidence"]["ambiguous"]
    decided = ahead["rows_by_decision"]["evidence"]
    assert len(then) * 4 // 5 < decided <= len(then)

    assert "backfilled" == ran("run", "--to", "backfill", "--unresolved", "create")["stage"]
    resolved(COLUMN)
    assert ("ok", f"{decided:,} messages have the persona of their memory") == verified()[
        "evidence"
    ]
    spoken: dict[UUID, UUID] = dict(
        app.query(
            "SELECT history_id, persona_id FROM memsync.row_archive WHERE reason = 'evidence'"
        )
    )
    assert decided == len(spoken)
    assert spoken == {row: then[row] for row in spoken}
    filled: dict[UUID, UUID | None] = app.personas()
    assert spoken == {row: filled[row] for row in spoken}

    assert "contracted" == ran("run", *UNHINDERED)["stage"]
    resolved(*NAMES)
    kept = app.query("SELECT migration_name, checksum FROM _prisma_migrations")
    assert {(name, checksum_of(folder, name)) for name in NAMES} <= set(kept)
    verified()
    assert filled == app.personas()
    assert "legacy" == ran("rollback", "--to", "start")["stage"]
    resolved()
    assert before[1] == app.query(ROWS)
    assert before[0]["columns"] == app.catalog()["columns"]

    assert "contracted" == ran("run", *UNHINDERED, "--unresolved", "create")["stage"]
    resolved(*NAMES)
    verified()
    assert filled == app.personas()
