"""The night, continued: a migrated app with everything that deployments have, its first morning.

The app goes on reading as it always did: by collection, in camelCase, by cosine. It must find what
it found before, and what was mended, through repairs, a change of layout, and the way back.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from memsync import migrate
from memsync.demo.world import Recipe, World, load, make_world
from memsync.model.ids import PersonaId
from memsync.model.records import Point
from support.lab import UNHINDERED, Lab, embed
from support.relayout import back, retire, to_shared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from functools import partial
    from uuid import UUID

Found = set[tuple[str, int]]
"""What the app finds in a collection: texts and times."""

FAULTS = {
    "missing-point": 3,
    "orphan-point": 2,
    "duplicate-point": 2,
    "persona-mismatch": 2,
    "unknown-persona": 2,
    "stale-content": 3,
    "wrong-payload-key": 4,
    "wrong-time-unit": 2,
    "missing-persona": 3,
    "misplaced-point": 2,
    "older-layout": 2,
}


def as_deployed(rng: random.Random, point: Point) -> Point:
    """The point by the app's own clock, some with what was said of an attachment."""
    payload = dict(point.payload)
    at = payload.get("createdAt")
    if isinstance(at, int) and at > 10**11:
        payload["createdAt"] = at + rng.choice((0, 400, 1_300, 2_900))
    question, newline, answer = str(payload.get("content", "")).partition("\n")
    if newline and "\n" not in answer and rng.random() < 0.2:
        payload["content"] = f"{question}\n\n[Image: a cat]\n{answer}"
    return replace(point, payload=payload)


def deployed_world(rng: random.Random) -> World:
    """An app with planted faults, whose other memories are as deployments have them."""
    world = make_world(Recipe(seed=rng.randrange(1000), users=12, dialogues=120, faults=FAULTS))
    clean = make_world(replace(world.recipe, faults={}))
    healthy = {(name, p.id): p for name, points in clean.points.items() for p in points}
    points = {
        name: [as_deployed(rng, p) if healthy.get((name, p.id)) == p else p for p in points]
        for name, points in world.points.items()
    }
    return replace(world, points=points)


def found_by_the_app(lab: Lab) -> Mapping[str, Found]:
    """What the app finds: memories whose text and whole milliseconds it can read."""
    found: dict[str, Found] = {}
    for name, points in lab.points().items():
        for _, payload, vector in points:
            assert isinstance(payload, dict)
            assert vector
            content, at = payload.get("content"), payload.get("createdAt")
            named = payload.get("personaId", name.removeprefix("persona-"))
            if not isinstance(content, str) or not isinstance(at, int) or at < 10**11:
                continue
            if name.startswith("persona-") and named == name[8:]:
                (query,) = embed([content])
                hits = lab.vectors.query(name, tuple(query), where={}, limit=100)
                assert content in {hit.point.payload.get("content") for hit in hits}
                found.setdefault(name, set()).add((content, at))
    return found


def recalled(lab: Lab, queries: Sequence[tuple[UUID, str]]) -> list[list[tuple[str, float]]]:
    """What the library recalls for each query: texts and scores."""
    return [
        sorted(
            (each.text, round(each.score, 5))
            for each in lab.ltm.recall(query, persona_id=PersonaId(persona), limit=1000)
        )
        for persona, query in queries
    ]


@pytest.mark.parametrize(
    "store", [pytest.param("memory", marks=pytest.mark.slow), "edge", "server"]
)
def test_the_morning_after(store: str, open_lab: partial[Lab], database: str, seed: int) -> None:
    """Check, plan, apply, check, the shared layout, and undo of everything."""
    lab = open_lab(store, url=database, layout="per-persona", embedder="support.lab:embed")
    world = deployed_world(random.Random(seed))
    with lab.postgres.session() as session:
        load(world, session, lab.vectors, lab.ltm.embedder.documents)
    migrate.run(
        lab.postgres, lab.settings, replace(UNHINDERED, unresolved="create", evidence="ignore")
    )
    beginning, app_found = lab.points(), found_by_the_app(lab)

    found = lab.check()
    assert (dict(world.manifest.expected), ()) == (found.counts, found.not_checked)
    assert {"time-skew", "enriched-content", "missing-persona"} <= set(found.facts)

    plan = lab.plan(found)
    lab.apply(plan)
    assert lab.check().ok
    assert () == lab.plan().actions
    removed = {each.place for each in plan.actions if each.kind == "remove"}
    stale = {each.place for each in plan.actions if each.reason == "stale-content"}
    gone = {
        (place.collection, str(payload.get("content")))
        for place in removed | stale
        for id_, payload, _ in beginning[place.collection]
        if id_ == place.point_id and isinstance(payload, dict)
    }
    mended = found_by_the_app(lab)
    for name, texts in app_found.items():
        lost = {each for each in texts if (name, each[0]) not in gone} - mended.get(name, set())
        assert not lost, "the app no longer finds a memory that was right"
    assert sum(map(len, mended.values())) > sum(map(len, app_found.values()))

    queries = [(each.persona_id, each.user_text) for each in lab.exchanges()[::40]]
    before = recalled(lab, queries)
    to_shared(lab)
    assert lab.check().ok
    assert before == recalled(lab, queries)
    retire(lab)
    assert [lab.home] == [name for name, points in lab.points().items() if points]
    assert before == recalled(lab, queries)
    back(lab)
    assert lab.check().ok
    assert before == recalled(lab, queries)
    lab.undo(plan)
    after = {name: points for name, points in lab.memories().items() if name != lab.home}
    assert {name: rounded(points) for name, points in beginning.items()} == after


def rounded(points: Sequence[tuple[object, object, tuple[float, ...] | None]]) -> list[object]:
    """The points as `Lab.memories` has them."""
    return [(i, p, v and tuple(round(x, 5) for x in v)) for i, p, v in points]
