"""Runs the whole job on a made-up app with planted faults: migrate, audit, plan, apply, check."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from memsync import migrate
from memsync.demo.world import FAULTS, Dialogue, Recipe, load, make_world, read_dialogues
from memsync.demo.world.world import World
from memsync.model.records import Place
from support.lab import UNHINDERED, Lab

REAL = Path(__file__).parents[3] / "shared/data/dialogs/dialogs.jsonl.gz"


def do_the_job(lab: Lab, world: World) -> None:
    """Migrate, audit, plan, apply and check, and assert the outcome of each step."""
    with lab.postgres.session() as session:
        load(world, session, lab.vectors, lab.ltm.embedder.documents)
    migrate.run(lab.postgres, lab.settings, replace(UNHINDERED, unresolved="create"))
    assert migrate.verify(lab.postgres).ok
    found = lab.audit()
    assert (dict(world.manifest.expected), True) == (found.counts, found.complete)
    assert world.manifest.exchanges == found.rows_checked
    assert world.manifest.points == found.points_checked
    before, whole = lab.points(), lab.memories()
    plan = lab.plan(found)
    assert {} == plan.left
    done = lab.apply(plan)
    assert (len(plan.actions), 0) == (done.done, done.done_before)
    assert ({}, True) == (lab.audit().counts, lab.check().ok)
    assert () == lab.plan().actions
    unread = {place for each in plan.actions for place in (each.place, each.source) if place}
    for name, points in before.items():
        now = {each[0]: each for each in lab.points()[name]}
        for point in points:
            assert Place(name, point[0]) in unread or now[point[0]] == point, "a right one changed"
    if plan.actions:
        lab.undo(plan)
    assert whole == lab.memories()


@pytest.mark.parametrize(
    ("store", "style"), [("edge", "snake"), ("server", "snake"), ("memory", "camel")]
)
def test_every_fault_at_once(
    store: str, style: str, open_lab: "partial[Lab]", database: str, seed: int
) -> None:
    """Exactly the planted faults are found, by name and number, and all are repaired."""
    recipe = Recipe(seed=seed, users=12, dialogues=110, faults=dict.fromkeys(FAULTS, 3))
    do_the_job(
        open_lab(store, url=database, payload_style=style, layout="per-persona"), make_world(recipe)
    )


@pytest.mark.parametrize("faults", [{name: 3} for name in FAULTS], ids=list(FAULTS))
@pytest.mark.slow
def test_each_fault_alone(
    faults: Mapping[str, int], open_lab: "partial[Lab]", database: str, seed: int
) -> None:
    """Each kind of fault alone is found exactly and repaired."""
    world = make_world(Recipe(seed=seed, users=8, dialogues=60, unresolved_share=0, faults=faults))
    do_the_job(open_lab("edge", url=database, layout="per-persona"), world)


@pytest.fixture(scope="session")
def real_dialogues() -> Sequence[Dialogue]:
    """Dialogues that people wrote."""
    if not REAL.is_file():
        pytest.skip("no real dialogues here")
    return read_dialogues(REAL)


@pytest.mark.slow
def test_real_dialogues(
    real_dialogues: Sequence[Dialogue], open_lab: "partial[Lab]", database: str, seed: int
) -> None:
    """With thousands of dialogues that people wrote, the faults are found exactly and repaired."""
    recipe = Recipe(seed=seed, users=80, source=real_dialogues, faults=dict.fromkeys(FAULTS, 9))
    do_the_job(open_lab("edge", url=database, layout="per-persona"), make_world(recipe))


@pytest.mark.slow
def test_some_real_dialogues(
    real_dialogues: Sequence[Dialogue], open_lab: "partial[Lab]", database: str, seed: int
) -> None:
    """With 200 of those dialogues, the faults are found exactly and repaired."""
    recipe = Recipe(seed=seed, source=real_dialogues[:200], faults=dict.fromkeys(FAULTS, 4))
    do_the_job(open_lab("edge", url=database, layout="per-persona"), make_world(recipe))


def test_postgres_and_python_pair_the_same_exchanges(
    open_lab: "partial[Lab]", database: str
) -> None:
    """Postgres and Python count the same exchanges, although several messages share a time."""
    lab = open_lab(url=database)
    world = make_world(Recipe(unresolved_share=0))
    with lab.postgres.session() as session:
        load(world, session, lab.vectors, lab.ltm.embedder.documents)
    migrate.run(lab.postgres, lab.settings, UNHINDERED)
    assert world.manifest.exchanges == len(lab.exchanges())
