"""An audit by fingerprints reads only what differs, and finds what an audit of everything finds."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from memsync import reconcile
from memsync.model.ids import point_id_of
from memsync.settings import Settings
from memsync.stores.ltm import Embedder, LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.postgres import Postgres
from memsync.stores.vectors import open_vectors
from support.lab import ADA, C, Lab, embed
from support.laws.coverage import duplicate, foreign_id, missing, orphan
from support.laws.isolation import mismatch
from support.ledger import aged
from support.worlds import HOME, World, clean_world, spoiled_world
from support.worlds.stored import prepare, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from functools import partial

    from memsync.model.ids import PointId
    from memsync.model.records import Exchange
    from memsync.reconcile.findings import Audit
    from support.postgres import PostgresCluster

    Both = Callable[[World, World], tuple[Audit, Audit]]

unhurried = settings(suppress_health_check=list(HealthCheck))


@pytest.fixture
def lab(open_lab: partial[Lab]) -> Lab:
    """A lab in the shared layout, whose ledger the relay has written."""
    return open_lab()


def found_in(audit: Audit) -> Counter[tuple[str, str, str]]:
    """The faults of an audit."""
    return Counter((each.name, each.store, each.key) for each in audit.faults)


def both(lab: Lab) -> tuple[Audit, Audit]:
    """The audit by fingerprints, and that of everything, which agree about what is there."""
    quick, deep = lab.audit(deep=False), lab.audit(deep=True)
    assert (0, None) == (deep.trusted, deep.why_whole)
    for name in ("rows_checked", "points_checked", "archived", "noted", "settling", "complete"):
        assert getattr(deep, name) == getattr(quick, name), name
    return quick, deep


# ---------------------------------------------------------------------- what it reads


def test_what_is_equal_is_not_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """No point is read where nothing differs, and the report says how many were trusted."""
    said = lab.settled()
    reads: list[str] = []
    for name in ("scroll", "retrieve"):
        real = getattr(type(lab.vectors), name)

        def read(store: object, collection: str, *args: object, real=real, **kw: object) -> object:  # type: ignore[no-untyped-def]
            if collection == lab.home:
                reads.append(collection)
            return real(store, collection, *args, **kw)

        monkeypatch.setattr(type(lab.vectors), name, read)
    quick = lab.audit(deep=False)
    assert (True, len(said), len(said)) == (quick.ok, quick.trusted, quick.points_checked)
    assert reads == []


@pytest.mark.parametrize("plant", [missing, orphan, duplicate, mismatch])
def test_it_finds_what_differs(
    lab: Lab, plant: Callable[[Lab, Sequence[Exchange]], object]
) -> None:
    """The same findings as an audit of everything, and only few points are read for them."""
    said = lab.settled(20)
    plant(lab, said)
    quick, deep = both(lab)
    assert found_in(deep) == found_in(quick)
    assert deep.faults
    assert quick.points_checked - quick.trusted <= 4


def test_a_row_that_was_edited(lab: Lab) -> None:
    """Its memory is stale, and the ledger knows the words that it was made of."""
    said = lab.settled(20)
    lab.sql(
        "UPDATE conversation_history SET content = 'other' WHERE id = %(id)s",
        id=said[3].anchor_id,
    )
    quick, deep = both(lab)
    assert {"stale-content": 1} == quick.counts == deep.counts


def test_archived_and_lost_and_vanished_memories(lab: Lab) -> None:
    """What has no rows is compared by the ledger, in the store and in the history."""
    said = lab.settled(20)
    aged(lab, timedelta(minutes=8))
    gone = [each for each in said if each.anchor_id not in {e.anchor_id for e in lab.exchanges()}]
    quick, deep = both(lab)
    assert (True, len(gone)) == (quick.ok, quick.archived)
    lab.lose(gone[0])
    lab.respell(gone[1].anchor_id, digest="0" * 64, fp1=0, fp2=0, user_text="x")
    lab.unsay(said[15])
    quick, deep = both(lab)
    assert found_in(deep) == found_in(quick)
    assert {"archived-missing", "archived-tampered", "row-vanished"} == set(quick.counts)


def test_a_persona_that_was_changed_beside_the_digest(lab: Lab) -> None:
    """It is found by the number of memories that each persona has."""
    said = lab.settled(20)
    lab.respell(said[0].anchor_id, persona_id=str(C))
    quick, deep = both(lab)
    assert {"persona-mismatch": 1} == quick.counts == deep.counts


@pytest.mark.parametrize(
    "changes",
    [
        {"fp1": 5000},
        {"fp1": None},
        {"fp1": [1, 2]},
        {"fp2": "7"},
        {"digest": None, "fp1": None, "fp2": None},
        {"persona_id": None},
        {"persona_id": [str(C), str(C)]},
    ],
    ids=str,
)
def test_odd_values_of_a_fingerprint_are_read(lab: Lab, changes: dict[str, object]) -> None:
    """Whatever stands where a fingerprint should, it is looked at, and judged by its payload."""
    said = lab.settled(20)
    lab.respell(said[0].anchor_id, **changes)
    quick, deep = both(lab)
    assert found_in(deep) == found_in(quick)
    assert quick.trusted < quick.points_checked


def test_words_that_were_changed_beside_the_digest_need_a_deep_audit(lab: Lab) -> None:
    """The digest that a payload carries is trusted, so only `deep` sees other words beside it."""
    said = lab.settled(20)
    lab.respell(said[0].anchor_id, user_text="x")
    quick, deep = both(lab)
    assert ({}, {"stale-content": 1}) == (quick.counts, deep.counts)


def test_a_memory_that_moved_to_another_id_needs_a_deep_audit(lab: Lab) -> None:
    """Its digest still counts once, so only `deep` sees that it has another id."""
    foreign_id(lab, lab.settled(20))
    quick, deep = both(lab)
    assert ({}, {"foreign-point-id": 1}) == (quick.counts, deep.counts)


def test_a_personality_without_memory_needs_none(lab: Lab) -> None:
    """Its exchanges have no memory in ledger and store; one that stands all the same is one."""
    said = lab.settled(20)
    lab.sql("UPDATE personalities SET memory_enabled = false WHERE id = %(id)s", id=ADA)
    try:
        quick, deep = both(lab)
        assert found_in(deep) == found_in(quick)
        for each in said[:3]:
            lab.lose(each)
        lab.sql("DELETE FROM memsync.memories WHERE anchor_id = %(id)s", id=said[0].anchor_id)
        quick, deep = both(lab)
        assert found_in(deep) == found_in(quick)
    finally:
        lab.sql("UPDATE personalities SET memory_enabled = true WHERE id = %(id)s", id=ADA)


# ---------------------------------------------------------------------- generated worlds

PRINTED = ("fp1", "fp2", "persona_id")


@pytest.fixture(scope="module")
def audited(postgres_cluster: PostgresCluster, migrated: str) -> Iterator[Both]:
    """Call it with a clean world and what became of it, for the quick and the deep audit.

    The ledger is that of the clean world.
    """
    name = postgres_cluster.create(template=migrated)
    url = postgres_cluster.url_of(name)
    chosen = Settings(postgres_url=url, qdrant_url=":memory:", layout="shared", collection=HOME)
    with psycopg.connect(url, autocommit=True) as connection, Postgres.open(url) as postgres:
        prepare(connection)

        def check(before: World, after: World) -> tuple[Audit, Audit]:
            connection.execute("TRUNCATE memsync.memories, memsync.mark, memsync.layout")
            with closing(open_vectors(chosen, create=True)) as vectors:
                ltm = LongTermMemory(vectors, chosen, Embedder("test", embed), Layout.SHARED)
                put(before, connection, vectors, ltm.codec)
                reconcile.adopt(postgres, ltm, chosen)
                put(after, connection, vectors, ltm.codec)
                quick = reconcile.audit(postgres, ltm, chosen, deep=False)
                return quick, reconcile.audit(postgres, ltm, chosen, deep=True)

        yield check
    postgres_cluster.drop(name)


def unprinted(before: World, after: World) -> set[PointId]:
    """The memories of which nothing changed that a fingerprint is made of."""
    old, new = (each.points.get(HOME, {}) for each in (before, after))
    gone = [_printed(payload) for point_id, payload in old.items() if point_id not in new]
    rows_before, rows_after = ({row[0]: row for row in each.rows} for each in (before, after))
    same: set[PointId] = set()
    for point_id, payload in new.items():
        if rows_before.get(point_id) != rows_after.get(point_id):
            continue
        under_another_id = point_id not in old and _printed(payload) in gone
        if under_another_id or _printed(old.get(point_id, {})) == _printed(payload):
            same.add(point_id)
    return same


def _printed(payload: Mapping[str, Any]) -> list[Any]:
    return [payload.get(key) for key in PRINTED]


def cancel_out(before: World, after: World) -> bool:
    """Whether memories lost their persona while others, in the same world, got it; see the table
    in docs/reconcile.md. Only those count of which the rest of the fingerprint stayed.
    """
    old, new = (_personas(each) for each in (before, after))
    kept = old.keys() & new.keys()
    got = {persona for key in kept for persona in new[key] - old[key]}
    lost = {persona for key in kept for persona in old[key] - new[key]}
    return not got.isdisjoint(lost)


def _personas(world: World) -> dict[tuple[object, object], Counter[object]]:
    """The personas of the memories of each pair of buckets."""
    found: dict[tuple[object, object], Counter[object]] = defaultdict(Counter)
    for payload in world.points.get(HOME, {}).values():
        named = payload.get("persona_id")
        buckets = payload.get("fp1"), payload.get("fp2")
        found[buckets].update(named if isinstance(named, list) else [named])
    return found


def must_agree(quick: Audit, deep: Audit, quiet: set[PointId]) -> None:
    """The quick audit finds what the deep one does, but for changes beside the fingerprint."""
    seen, all_of_it = found_in(quick), found_in(deep)
    assert not seen - all_of_it
    left = all_of_it - seen
    assert not [each for each in left if each[1] != f"qdrant:{HOME}"], left
    assert {point_id_of(key) for _, _, key in left} <= quiet, left
    assert (quick.rows_checked, quick.points_checked) == (deep.rows_checked, deep.points_checked)


def compare(audited: Both, seed: int, size: int, faults: int) -> None:
    """Audit a world by fingerprint and deep, after so many faults, and require that they agree."""
    before = clean_world(seed, Layout.SHARED, size)
    after = spoiled_world(seed, Layout.SHARED, size, faults)
    assume(not cancel_out(before, after))
    quick, deep = audited(before, after)
    must_agree(quick, deep, unprinted(before, after))


seeds, sizes = st.integers(0, 2**32), st.integers(3, 12)


@example(seed=64599, size=4, faults=3)
@example(seed=549413, size=4, faults=2)
@given(seed=seeds, size=sizes, faults=st.integers(0, 5))
@settings(unhurried, max_examples=15)
def test_it_agrees_with_the_deep_audit(audited: Both, seed: int, size: int, faults: int) -> None:
    """About every difference that changes a digest, a persona or a number."""
    compare(audited, seed, size, faults)


@pytest.mark.slow
@given(seed=seeds, size=sizes, faults=st.integers(0, 5))
@settings(unhurried, max_examples=2000)
def test_it_agrees_in_many_worlds(audited: Both, seed: int, size: int, faults: int) -> None:
    """The same in two thousand worlds."""
    compare(audited, seed, size, faults)
