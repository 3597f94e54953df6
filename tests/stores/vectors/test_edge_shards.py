"""Tests that the engine keeps few collections open, and that nobody notices."""

import multiprocessing
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memsync.errors import SchemaMismatch, StoreBusy, StoreUnreachable
from memsync.model.records import Point
from memsync.stores.vectors import edge, scan
from memsync.stores.vectors.edge import EdgeStore, open_edge

OPEN_MAX = 3
NAMES = [f"persona-{number}" for number in range(8)]
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EdgeStore]:
    """A store with more collections than it may have open, each with one point."""
    monkeypatch.setattr(edge, "_OPEN_MAX", OPEN_MAX)
    opened = open_edge(tmp_path)
    for number, name in enumerate(NAMES):
        opened.create(name, 2, {})
        opened.upsert(name, [point(number)])
    yield opened
    opened.close()


def point(number: int) -> Point:
    """A point whose payload has its number."""
    return Point(number, {"number": number}, (1.0, 0.0))


def held(store: EdgeStore) -> list[list[object]]:
    """The numbers of the points of each collection."""
    return [[each.payload["number"] for each in scan(store, name)] for name in NAMES]


def test_few_are_open_and_all_are_read(store: EdgeStore) -> None:
    """What was written to one that was closed since is there; so it is after the next opening."""
    assert [[number] for number in range(len(NAMES))] == held(store)
    assert OPEN_MAX == len(store._shards)
    for number, name in enumerate(NAMES):
        store.upsert(name, [point(100 + number)])
        assert len(store._shards) <= OPEN_MAX
    store.drop(NAMES[0])
    store.create(NAMES[0], 2, {})
    expected = [[], *([number, 100 + number] for number in range(1, len(NAMES)))]
    assert expected == held(store)

    directory = store._directory
    store.close()
    again = open_edge(directory)
    assert expected == held(again)
    again.close()


def test_the_one_not_used_for_longest_is_closed(store: EdgeStore) -> None:
    """One that is used all the time stays open."""
    kept = None
    for name in NAMES[1:]:
        store.count(NAMES[0])
        kept = kept or store._shards[NAMES[0]]
        store.count(name)
        assert kept is store._shards[NAMES[0]]


def test_threads_share_it(store: EdgeStore) -> None:
    """No thread loses the collection that it uses to one that another thread opens."""

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for number in range(10):
            name = rng.choice(NAMES)
            store.upsert(name, [point(1000 * (seed + 1) + number)])
            assert store.count(rng.choice(NAMES)) >= 1
            assert store.retrieve(name, [NAMES.index(name)])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert len(store._shards) <= OPEN_MAX
    assert len(NAMES) + 4 * 10 == sum(map(len, held(store)))


def test_a_forked_process_leaves_them_to_its_parent(store: EdgeStore) -> None:
    """The child is refused, and the parent's collections are as they were, open ones and others."""

    def of_child() -> None:
        refused = 0
        for name in NAMES:
            try:
                store.count(name)
            except (StoreBusy, StoreUnreachable):
                refused += 1
        os._exit(0 if refused == len(NAMES) else 1)

    child = FORK.Process(target=of_child)
    child.start()
    child.join(30)
    assert 0 == child.exitcode
    assert [[number] for number in range(len(NAMES))] == held(store)
    store.upsert(NAMES[0], [point(100)])
    assert [0, 100] == held(store)[0]


def test_one_that_cannot_be_closed_is_named(
    store: EdgeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is about the collection that was to be closed, and the next call goes on."""

    class Failing:
        def flush(self) -> None:
            raise RuntimeError("no space left on device")

        def close(self) -> None:
            pass

    oldest = next(iter(store._shards))
    store._shards[oldest].close()
    monkeypatch.setitem(store._shards, oldest, Failing())
    closed = next(name for name in NAMES if name not in store._shards)
    with pytest.raises(StoreUnreachable, match=f"'{oldest}'.*no space left"):
        store.count(closed)
    assert 1 == store.count(closed)
    assert 1 == store.count(oldest)


def test_a_collection_that_is_missing_closes_none(store: EdgeStore) -> None:
    """A name without a collection does not cost one that is open."""
    before = list(store._shards)
    with pytest.raises(SchemaMismatch):
        store.count("none")
    assert before == list(store._shards)
