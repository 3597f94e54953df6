"""An audit of a generated world reports exactly what was planted in it: precision and recall 1."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memsync import reconcile
from memsync.settings import Settings
from memsync.stores.ltm import Embedder, LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.postgres import Postgres
from memsync.stores.vectors import open_vectors
from support.lab import embed
from support.worlds import FAULTS, HOME, World, clean_world, spoiled_world
from support.worlds.stored import prepare, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memsync.reconcile.findings import Audit
    from support.postgres import PostgresCluster

    Audited = Callable[[World], Audit]

unhurried = settings(suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def audited(postgres_cluster: PostgresCluster, migrated: str) -> Iterator[Audited]:
    """Call it with a world for the report of `memsync check`."""
    name = postgres_cluster.create(template=migrated)
    url = postgres_cluster.url_of(name)
    with psycopg.connect(url, autocommit=True) as connection, Postgres.open(url) as postgres:
        prepare(connection)

        def check(world: World) -> Audit:
            chosen = Settings(
                postgres_url=url, qdrant_url=":memory:", layout=world.layout.value, collection=HOME
            )
            with closing(open_vectors(chosen, create=True)) as vectors:
                ltm = LongTermMemory(vectors, chosen, Embedder("test", embed), world.layout)
                put(world, connection, vectors, ltm.codec)
                return reconcile.check(postgres, ltm, chosen)

        yield check
    postgres_cluster.drop(name)


def must_report(audit: Audit, world: World) -> None:
    """The faults, facts and counts of the audit are those of the world."""
    found = Counter((each.name, each.store, each.key) for each in audit.faults)
    assert world.expected == found, (world.planted, found - world.expected)
    assert world.facts == audit.facts, world.planted
    assert world.archived == audit.archived, world.planted
    assert (True, 0) == (audit.complete, audit.settling)
    assert sum(map(len, world.points.values())) == audit.points_checked


seeds, sizes = st.integers(0, 2**32), st.integers(3, 12)


@pytest.mark.parametrize("layout", Layout)
@given(seed=seeds, size=sizes)
@settings(unhurried, max_examples=20)
def test_a_clean_world_is_clean(audited: Audited, layout: Layout, seed: int, size: int) -> None:
    """Odd texts, equal times, clocks that are off and pruned threads are no faults."""
    world = clean_world(seed, layout, size)
    assert not world.expected
    must_report(audited(world), world)


@pytest.mark.parametrize("layout", Layout)
@given(seed=seeds, size=sizes, faults=st.integers(1, 5))
@settings(unhurried, max_examples=50)
def test_what_was_planted_is_reported(
    audited: Audited, layout: Layout, seed: int, size: int, faults: int
) -> None:
    """Exactly the planted faults are found, where they are."""
    world = spoiled_world(seed, layout, size, faults)
    must_report(audited(world), world)


@pytest.mark.slow
@pytest.mark.parametrize("layout", Layout)
@given(seed=seeds, size=sizes, faults=st.integers(0, 5))
@settings(unhurried, max_examples=1000)
def test_what_was_planted_is_reported_in_many_worlds(
    audited: Audited, layout: Layout, seed: int, size: int, faults: int
) -> None:
    """The same in two thousand worlds."""
    world = spoiled_world(seed, layout, size, faults)
    must_report(audited(world), world)


@pytest.mark.parametrize("layout", Layout)
def test_each_kind_of_fault_can_be_planted(layout: Layout, seed: int) -> None:
    """No kind of fault is one that no world has room for."""
    planted: set[str] = set()
    for number in range(400):
        planted |= set(spoiled_world(seed + number, layout, 12, 5).planted)
    assert set(FAULTS[layout]) == planted
