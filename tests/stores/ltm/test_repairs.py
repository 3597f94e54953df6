"""What the store itself checks before a repair writes over a point that was seen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
from qdrant_client import QdrantClient, models

from memsync.model.ids import PointId
from memsync.model.records import Point
from memsync.settings import Settings
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.ltm.repairs import Repairs
from memsync.stores.vectors import VectorStore, open_vectors
from memsync.stores.vectors.protocol import CollectionInfo, IndexKind, Where
from support.failing import Failing

HOME = f"persona-{uuid4()}"
ID = UUID(int=7)
SEEN: dict[str, object] = {
    "content": "User (A): x\nAda: y",
    "createdAt": 1_700_000_000_000,
    "messageIds": ["a", "b"],
    "liked": True,
    "score": 0.5,
    "a.b[]": "odd",
    "huge": 2**63,
    "": "nameless",
}

Write = Callable[[Repairs, Point], object]
WRITES: dict[str, Write] = {
    "put": lambda repairs, seen: repairs.put(HOME, [Point(ID, {"n": 1}, (0.0, 1.0))], {ID: seen}),
    "overwrite": lambda repairs, seen: repairs.overwrite(HOME, [Point(ID, {"n": 1})], {ID: seen}),
    "remove": lambda repairs, seen: repairs.remove(HOME, {ID: seen}),
}


@pytest.fixture(params=["memory", "edge", "server"])
def vector_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    """An open store of each kind."""
    where = {"memory": ":memory:", "edge": f"edge:{tmp_path}"}.get(request.param)
    where = where or request.getfixturevalue("qdrant_server_url")
    if where is None:
        pytest.skip("no Qdrant server")
    with closing(open_vectors(Settings(qdrant_url=where), create=True)) as store:
        yield store
        store.drop(HOME)


def standing(store: VectorStore, payload: dict[str, object]) -> list[Point]:
    """Put a point with this payload there, and return what stands."""
    store.create(HOME, 2, {})
    store.upsert(HOME, [Point(ID, payload, (1.0, 0.0))])
    return store.retrieve(HOME, [ID])


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_point_as_it_was_seen_is_written(vector_store: VectorStore, write: Write) -> None:
    """Whatever keys its payload has."""
    [seen] = standing(vector_store, {k: v for k, v in SEEN.items() if k != "huge"})
    write(Repairs(vector_store, "memories", PayloadCodec("snake")), seen)
    assert [seen] != vector_store.retrieve(HOME, [ID])


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("changed", [{"content": "User (A): x\nAda: z"}, {"createdAt": 1}])
def test_a_point_that_was_changed_stays(
    vector_store: VectorStore, write: Write, changed: dict[str, object]
) -> None:
    """Somebody has written it between the look and the write, in a collection without indexes."""
    [seen] = standing(vector_store, {"content": SEEN["content"], "createdAt": SEEN["createdAt"]})
    theirs = standing(vector_store, {**seen.payload, **changed})
    write(Repairs(vector_store, "memories", PayloadCodec("snake")), seen)
    assert theirs == vector_store.retrieve(HOME, [ID])


class Strict(Failing):
    """A store that filters by indexed keys only. It keeps the conditions that it was given."""

    indexes: ClassVar[Mapping[str, IndexKind]] = {"createdAt": IndexKind.INTEGER}

    def describe(self, collection: str) -> CollectionInfo | None:  # noqa: ARG002
        return CollectionInfo(2, "Cosine", self.indexes, needs_indexes=True)

    def delete(
        self,
        collection: str,  # noqa: ARG002
        ids: Sequence[PointId],  # noqa: ARG002
        *,
        only_where: Mapping[PointId, Where] | None = None,
    ) -> None:
        self.where = only_where


class AllIndexed(Strict):
    """One in which every key is indexed, as text."""

    indexes: ClassVar[Mapping[str, IndexKind]] = dict.fromkeys(SEEN, IndexKind.KEYWORD)


class OddlyIndexed(Strict):
    """One whose indexes fit no value."""

    indexes: ClassVar[Mapping[str, IndexKind]] = dict.fromkeys(SEEN, IndexKind.TENANT)


@pytest.mark.parametrize(
    ("kind", "compared"),
    [(Strict, ["createdAt"]), (AllIndexed, ["content"]), (OddlyIndexed, [])],
)
def test_in_strict_mode_only_what_is_indexed_is_compared(
    kind: type[Strict], compared: list[str]
) -> None:
    """The server refuses any other value. Keys that it takes for paths, and numbers that no
    condition can hold, are left out as ever.
    """
    with closing(open_vectors(Settings(qdrant_url=":memory:"), create=True)) as store:
        strict = kind(store)
        WRITES["remove"](Repairs(strict, "memories", PayloadCodec("snake")), Point(ID, SEEN))
    assert {ID: {key: SEEN[key] for key in compared}} == strict.where


@pytest.mark.server
def test_an_odd_value_costs_no_other_point_on_a_strict_server(
    qdrant_server_url: str | None,
) -> None:
    """Each kind of index, with a value of that kind and with others, in one request."""
    name, uuid = f"strict-{uuid4()}", str(uuid4())
    client = QdrantClient(qdrant_server_url, check_compatibility=False)
    plain = {"channel_id": "1", "fp1": 1, "persona_id": uuid, "personality_id": uuid, "only": 1}
    odd = {"channel_id": 1, "fp1": uuid, "persona_id": "x", "personality_id": 1, "only": uuid}
    payloads: list[dict[str, object]] = [{**plain}, {**odd}]
    payloads += [dict.fromkeys(plain, "1"), dict.fromkeys(plain, f"{{{uuid}}}")]
    with closing(client), closing(open_vectors(Settings(qdrant_url=qdrant_server_url))) as store:
        store.create(name, 2, PayloadCodec("snake").indexes)
        ranges = models.IntegerIndexParams(
            type=models.IntegerIndexType.INTEGER, lookup=False, range=True
        )
        client.create_payload_index(name, "only", field_schema=ranges, wait=True)
        mode = models.StrictModeConfig(
            enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False
        )
        client.update_collection(name, strict_mode_config=mode)
        store.upsert(name, [Point(at, each, (1.0, 0.0)) for at, each in enumerate(payloads)])
        repairs = Repairs(store, name, PayloadCodec("snake"))
        seen = {each.id: each for each in store.retrieve(name, range(4), vectors=True)}
        more = [Point(at, {**each.payload, "note": "n"}) for at, each in seen.items()]
        assert {} == repairs.overwrite(name, more, seen)
        assert more == store.retrieve(name, range(4))
        seen = {each.id: each for each in store.retrieve(name, range(4), vectors=True)}
        assert {} == repairs.put(name, [Point(at, {}, (0.0, 1.0)) for at in seen], seen)
        seen = {each.id: each for each in store.retrieve(name, range(4))}
        assert {} == repairs.remove(name, seen)
        assert 0 == store.count(name)
        store.drop(name)
