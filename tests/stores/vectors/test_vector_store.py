"""Tests that every driver keeps the promises of `memsync.stores.vectors.protocol.VectorStore`."""

from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from uuid import UUID, uuid4

import pytest
from qdrant_client import models

from memsync.errors import (
    DimensionMismatch,
    InvalidInput,
    SchemaMismatch,
)
from memsync.model.ids import PointId, point_order
from memsync.model.records import Point, Vector
from memsync.stores.vectors.protocol import (
    AnyOf,
    CollectionInfo,
    IndexKind,
    Page,
    VectorStore,
    Where,
    scan,
)
from memsync.stores.vectors.qdrant import QdrantStore

INDEXES = {
    "persona_id": IndexKind.TENANT,
    "personality_id": IndexKind.UUID,
    "digest": IndexKind.KEYWORD,
    "fp1": IndexKind.INTEGER,
}
EAST: Vector = (1.0, 0.0, 0.0)
NORTH: Vector = (0.0, 1.0, 0.0)
NORTHEAST: Vector = (1.0, 1.0, 0.0)
TEXT = "Grüße, 世界 🌍 'single' \"double\" \\back\nline\ttab é vs e\u0301 \u202e"


def point(point_id: PointId, vector: Vector = EAST, **payload: object) -> Point:
    """A point to write."""
    return Point(point_id, payload, vector)


@pytest.fixture
def made(vector_store: VectorStore, name: str) -> str:
    """The name of an empty collection of 3 dimensions with all kinds of index."""
    vector_store.create(name, 3, INDEXES)
    return name


class TestCollections:
    def test_listed_by_name(self, vector_store: VectorStore, name: str) -> None:
        """A collection is listed once it is made, and no longer once it is dropped."""
        before = vector_store.collections()
        vector_store.create(name, 3, {})
        assert sorted([*before, name]) == vector_store.collections()
        vector_store.drop(name)
        assert before == vector_store.collections()

    def test_describes_nothing(self, vector_store: VectorStore, name: str) -> None:
        """A collection that does not exist is described as None."""
        assert vector_store.describe(name) is None

    def test_describes_itself(self, vector_store: VectorStore, made: str) -> None:
        """A collection reports its size, its distance and every kind of index."""
        assert CollectionInfo(3, "Cosine", INDEXES) == vector_store.describe(made)

    def test_create_twice(self, vector_store: VectorStore, made: str) -> None:
        """Creating again changes nothing and keeps the points."""
        vector_store.upsert(made, [point(1)])
        vector_store.create(made, 3, INDEXES)
        assert vector_store.count(made) == 1
        assert CollectionInfo(3, "Cosine", INDEXES) == vector_store.describe(made)

    def test_create_adds_indexes(self, vector_store: VectorStore, name: str) -> None:
        """Creating again adds the indexes that are missing and keeps the others."""
        vector_store.create(name, 3, {"fp1": IndexKind.INTEGER})
        vector_store.create(name, 3, {"digest": IndexKind.KEYWORD})
        expected = {"fp1": IndexKind.INTEGER, "digest": IndexKind.KEYWORD}
        assert CollectionInfo(3, "Cosine", expected) == vector_store.describe(name)

    def test_create_mends_an_index(self, vector_store: VectorStore, name: str) -> None:
        """An index of another kind is replaced by the one that is asked for."""
        vector_store.create(name, 3, {"persona_id": IndexKind.KEYWORD})
        vector_store.create(name, 3, {"persona_id": IndexKind.TENANT})
        expected = CollectionInfo(3, "Cosine", {"persona_id": IndexKind.TENANT})
        assert expected == vector_store.describe(name)

    def test_create_refuses_another_size(self, vector_store: VectorStore, made: str) -> None:
        """An existing collection of another vector size is refused, with both sizes."""
        with pytest.raises(DimensionMismatch, match="3 dimensions, not 4"):
            vector_store.create(made, 4, INDEXES)

    def test_drop_twice(self, vector_store: VectorStore, made: str) -> None:
        """Dropping a collection that does not exist is no error."""
        vector_store.drop(made)
        vector_store.drop(made)
        assert vector_store.describe(made) is None

    def test_made_anew(self, vector_store: VectorStore, made: str) -> None:
        """A collection that is dropped and made again has nothing of the old one."""
        vector_store.upsert(made, [point(1)])
        vector_store.drop(made)
        vector_store.create(made, 2, {})
        assert vector_store.count(made) == 0
        assert CollectionInfo(2, "Cosine", {}) == vector_store.describe(made)

    def test_aliases(self, vector_store: VectorStore, made: str) -> None:
        """Another name reaches the collection, and is listed with it and not among collections."""
        alias = f"{made}-alias"
        assert alias not in vector_store.aliases()
        if not isinstance(vector_store, QdrantStore):
            return
        action = models.CreateAlias(collection_name=made, alias_name=alias)
        vector_store._client.update_collection_aliases(
            [models.CreateAliasOperation(create_alias=action)]
        )
        assert made == vector_store.aliases()[alias]
        assert alias not in vector_store.collections()

    @pytest.mark.parametrize(
        "call",
        [
            lambda store, name: store.upsert(name, [point(1)]),
            lambda store, name: store.upsert(name, [point(1)], only_absent=True),
            lambda store, name: store.upsert(name, [point(1)], only_where={1: {"fp1": 1}}),
            lambda store, name: store.overwrite_payloads(name, {1: {}}),
            lambda store, name: store.delete(name, [1]),
            lambda store, name: store.delete(name, [1], only_where={1: {"fp1": 1}}),
            lambda store, name: store.retrieve(name, [1]),
            lambda store, name: store.scroll(name, start=None, limit=1),
            lambda store, name: store.scroll(name, start=None, limit=1, any_of=AnyOf()),
            lambda store, name: store.query(name, EAST, where={}, limit=1),
            lambda store, name: store.facet(name, "fp1", limit=1),
            lambda store, name: store.count(name),
        ],
        ids=[
            "upsert",
            "absent",
            "where",
            "payloads",
            "delete",
            "delete-where",
            "retrieve",
            "scroll",
            "any",
            "query",
            "facet",
            "count",
        ],
    )
    def test_missing(
        self, vector_store: VectorStore, name: str, call: Callable[[VectorStore, str], object]
    ) -> None:
        """A read or write of a missing collection raises SchemaMismatch, which names it."""
        with pytest.raises(SchemaMismatch, match=name):
            call(vector_store, name)


class TestOrder:
    IDS: tuple[PointId, ...] = (
        0,
        7,
        2**63,
        2**64 - 1,
        *sorted([*(uuid4() for _ in range(20)), UUID(int=0), UUID(int=2**128 - 1)]),
    )

    def test_of_pages(self, vector_store: VectorStore, made: str) -> None:
        """Pages give integers first, then uuids bytewise, each point once."""
        vector_store.upsert(made, [point(each) for each in reversed(self.IDS)])
        found = [each.id for each in scan(vector_store, made, page_points=3)]
        assert list(self.IDS) == found
        assert sorted(self.IDS, key=point_order) == found

    def test_start_that_is_not_there(self, vector_store: VectorStore, made: str) -> None:
        """A page starts at the first id that is equal to its start or after it."""
        low, high = UUID(int=16), UUID(int=32)
        vector_store.upsert(made, [point(each) for each in (5, 9, low, high)])
        for start, expected in (
            (6, [9, low, high]),
            (10, [low, high]),
            (UUID(int=1), [low, high]),
            (UUID(int=17), [high]),
            (high, [high]),
            (UUID(int=33), []),
        ):
            page = vector_store.scroll(made, start=start, limit=10)
            assert (expected, None) == ([each.id for each in page.points], page.next_start)

    @pytest.mark.parametrize(("limit", "expected"), [(1, 2), (2, 3), (3, None), (4, None)])
    def test_page_boundary(
        self, vector_store: VectorStore, made: str, limit: int, expected: int | None
    ) -> None:
        """A page gives the next page's first id, and None exactly when nothing follows."""
        vector_store.upsert(made, [point(1), point(2), point(3)])
        page = vector_store.scroll(made, start=None, limit=limit)
        assert list(range(1, 4))[:limit] == [each.id for each in page.points]
        assert expected == page.next_start

    def test_empty(self, vector_store: VectorStore, made: str) -> None:
        """An empty collection is one empty page."""
        assert Page([], None) == vector_store.scroll(made, start=None, limit=10)

    def test_retrieve(self, vector_store: VectorStore, made: str) -> None:
        """Retrieving gives each existing point once, in id order, whatever order was asked."""
        vector_store.upsert(made, [point(each) for each in self.IDS])
        asked = [*reversed(self.IDS), 1234, uuid4(), self.IDS[0]]
        assert list(self.IDS) == [each.id for each in vector_store.retrieve(made, asked)]
        assert vector_store.retrieve(made, [1234]) == []
        assert vector_store.retrieve(made, []) == []

    def test_no_page_of_nothing(self, vector_store: VectorStore, made: str) -> None:
        """A page of no points is refused, because reading by such pages would never end."""
        with pytest.raises(InvalidInput):
            vector_store.scroll(made, start=None, limit=0)


class TestWrites:
    def test_replace_whole(self, vector_store: VectorStore, made: str) -> None:
        """A repeated write changes nothing; another one replaces payload and vector whole."""
        for _ in range(2):
            vector_store.upsert(made, [point(1, EAST, a=1, b=2)])
            assert [point(1, EAST, a=1, b=2)] == vector_store.retrieve(made, [1], vectors=True)
        vector_store.upsert(made, [point(1, NORTH, c=3)])
        assert [point(1, NORTH, c=3)] == vector_store.retrieve(made, [1], vectors=True)
        assert vector_store.count(made) == 1

    def test_last_of_one_id(self, vector_store: VectorStore, made: str) -> None:
        """Of several points with one id in a call the last is kept, in conditional calls too."""
        vector_store.upsert(made, [point(1, a=1), point(1, a=2)])
        vector_store.upsert(made, [point(2, a=1), point(2, a=2)], only_absent=True)
        assert [point(1, a=2), point(2, a=2)] == vector_store.retrieve(made, [1, 2], vectors=True)

    def test_delete(self, vector_store: VectorStore, made: str) -> None:
        """A deleted point is gone from every read at once; deleting it again is no error."""
        gone, kept = uuid4(), uuid4()
        vector_store.upsert(made, [point(gone), point(kept), point(3)])
        for _ in range(2):
            vector_store.delete(made, [gone, 3, uuid4()])
        vector_store.delete(made, [])
        assert [kept] == [each.id for each in scan(vector_store, made)]
        assert vector_store.retrieve(made, [gone]) == []
        assert vector_store.count(made) == 1
        hits = vector_store.query(made, EAST, where={}, limit=10)
        assert [kept] == [hit.point.id for hit in hits]

    def test_only_absent(self, vector_store: VectorStore, made: str) -> None:
        """With only_absent new and deleted ids are written, and existing points stay."""
        vector_store.upsert(made, [point(1, a="old"), point(2, a="old")])
        vector_store.delete(made, [2])
        new = [point(each, NORTH, a="new") for each in (1, 2, 3)]
        vector_store.upsert(made, new, only_absent=True)
        expected = [point(1, EAST, a="old"), point(2, NORTH, a="new"), point(3, NORTH, a="new")]
        assert expected == list(scan(vector_store, made, vectors=True))

    def test_only_where(self, vector_store: VectorStore, made: str) -> None:
        """With only_where a point is written only over an existing point that matches."""
        vector_store.upsert(
            made,
            [
                point(1, digest="a", fp1=1),
                point(2, digest="b", fp1=1),
                point(3, digest="a", fp1=2),
                point(4),
                point(5, digest="a", fp1=1),
            ],
        )
        vector_store.delete(made, [5])
        new = [point(each, NORTH, digest="new") for each in (1, 2, 3, 4, 5, 6)]
        where: Where = {"digest": "a", "fp1": 1}
        vector_store.upsert(made, new, only_where={each.id: where for each in new})
        expected = [
            point(1, NORTH, digest="new"),
            point(2, EAST, digest="b", fp1=1),
            point(3, EAST, digest="a", fp1=2),
            point(4, EAST),
        ]
        assert expected == list(scan(vector_store, made, vectors=True))

    def test_each_by_its_own_condition(self, vector_store: VectorStore, made: str) -> None:
        """A point that matches another one's condition is not written; without one, it exists."""
        vector_store.upsert(made, [point(each, fp1=each) for each in (1, 2, 3, 4)])
        new = [point(each, NORTH, fp1=0) for each in (1, 2, 3, 4, 5)]
        where: dict[PointId, Where] = {1: {"fp1": 1}, 2: {"fp1": 1}, 3: {"fp1": 3}, 5: {}}
        vector_store.upsert(made, new, only_where=where)
        expected = [point(2, EAST, fp1=2) if at == 1 else new[at] for at in range(4)]
        assert expected == list(scan(vector_store, made, vectors=True))

    def test_payloads(self, vector_store: VectorStore, made: str) -> None:
        """The payload of an existing point is replaced whole, and its vector stays to the bit."""
        ids: list[PointId] = [7, uuid4(), uuid4()]
        odd: Vector = (0.1, 0.7, -0.3)
        vector_store.upsert(made, [point(each, odd, a=1, b=TEXT) for each in ids])
        before = vector_store.retrieve(made, ids, vectors=True)
        gone, never = ids[1], uuid4()
        vector_store.delete(made, [gone])
        new: dict[PointId, dict[str, object]] = {
            each: {"c": [1, {"d": TEXT}]} for each in (*ids, never)
        }
        for _ in range(2):
            vector_store.overwrite_payloads(made, new)
            expected = [replace(p, payload=new[p.id]) for p in before if p.id != gone]
            assert expected == list(scan(vector_store, made, vectors=True))
        vector_store.overwrite_payloads(made, {ids[0]: {}})
        assert {} == vector_store.retrieve(made, [ids[0]])[0].payload
        vector_store.overwrite_payloads(made, {})
        assert vector_store.count(made) == 2

    def test_a_payload_that_cannot_be_kept(self, vector_store: VectorStore, made: str) -> None:
        """It is refused before another one of the call is written."""
        vector_store.upsert(made, [point(1, a=1), point(2, a=1)])
        with pytest.raises(InvalidInput):
            vector_store.overwrite_payloads(made, {1: {"a": 2}, 2: {"a": 2**63}})
        assert [{"a": 1}] * 2 == [each.payload for each in scan(vector_store, made)]

    def test_payloads_and_deletes_where(self, vector_store: VectorStore, made: str) -> None:
        """A point whose payload does not match stays; one without a condition is changed."""
        standing = [point(1, fp1=1), point(2, fp1=2), point(3), point(4, fp1=4, digest="a")]
        vector_store.upsert(made, standing)
        where: dict[PointId, Where] = {
            1: {"fp1": 1},
            2: {"fp1": 1},
            3: {"fp1": 1},
            4: {"fp1": 4, "digest": "b"},
            5: {"fp1": 1},
        }
        new: dict[PointId, dict[str, object]] = {each: {"fp1": 1} for each in range(1, 6)}
        vector_store.overwrite_payloads(made, new, only_where=where)
        expected = [point(1, fp1=1), *standing[1:]]
        assert expected == list(scan(vector_store, made, vectors=True))
        vector_store.overwrite_payloads(made, {2: {"fp1": 3}, 3: {}}, only_where={3: {"fp1": 1}})
        vector_store.delete(made, [1, 2, 3, 4, 5], only_where=where)
        assert [2, 3, 4] == [each.id for each in scan(vector_store, made)]
        assert {"fp1": 3} == vector_store.retrieve(made, [2])[0].payload
        vector_store.delete(made, [2, 3, 4], only_where={4: {"fp1": 5}, 3: {}})
        assert [4] == [each.id for each in scan(vector_store, made)]

    def test_payloads_of_many(self, vector_store: VectorStore, made: str) -> None:
        """A call may change or delete more points than one request holds."""
        ids: list[PointId] = list(range(600))
        vector_store.upsert(made, [point(each, fp1=1) for each in ids])
        vector_store.overwrite_payloads(made, {each: {"fp1": 2} for each in ids})
        assert {2} == {each.payload["fp1"] for each in scan(vector_store, made)}
        vector_store.delete(made, ids, only_where={each: {"fp1": 2} for each in ids[1:]})
        assert 0 == vector_store.count(made)

    def test_where_nothing_is_asked(self, vector_store: VectorStore, made: str) -> None:
        """An empty condition is that the point exists."""
        vector_store.upsert(made, [point(1, a=1)])
        vector_store.upsert(made, [point(1, NORTH, a=2), point(2)], only_where={})
        assert [point(1, NORTH, a=2)] == list(scan(vector_store, made, vectors=True))

    def test_without_conditions(
        self, vector_store: VectorStore, made: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On servers before 1.17 points are compared first, with the same outcome."""
        # qdrant-edge always knows conditions, so the patch changes nothing there.
        monkeypatch.setattr(vector_store, "_is_conditional", lambda: False, raising=False)
        standing = [point(1, digest="a"), point(2, digest=["b", "a"]), point(3)]
        vector_store.upsert(made, standing)
        vector_store.upsert(made, [point(3, NORTH), point(4, NORTH)], only_absent=True)
        new = [point(each, digest="new") for each in range(1, 6)]
        vector_store.upsert(made, new, only_where={each.id: {"digest": "a"} for each in new})
        expected = [point(1, digest="new"), point(2, digest="new"), point(3), point(4, NORTH)]
        assert expected == list(scan(vector_store, made, vectors=True))

    def test_one_condition(self, vector_store: VectorStore, made: str) -> None:
        """A write with both conditions is refused."""
        with pytest.raises(InvalidInput):
            vector_store.upsert(made, [point(1)], only_absent=True, only_where={1: {"fp1": 1}})

    def test_another_size(self, vector_store: VectorStore, made: str) -> None:
        """Vectors of another size are refused, in writes and in queries."""
        with pytest.raises(DimensionMismatch):
            vector_store.upsert(made, [Point(1, {}, (1.0, 0.0))])
        assert vector_store.count(made) == 0
        with pytest.raises(DimensionMismatch):
            vector_store.query(made, (1.0, 0.0), where={}, limit=1)

    def test_many(self, vector_store: VectorStore, made: str) -> None:
        """A call may write, find or delete more points than one request or one page holds."""
        ids = sorted(uuid4() for _ in range(2500))
        vector_store.upsert(made, [point(each, fp1=n % 2) for n, each in enumerate(ids)])
        assert (2500, 1250) == (vector_store.count(made), vector_store.count(made, {"fp1": 1}))
        assert ids == [each.id for each in scan(vector_store, made)]
        assert ids == [each.id for each in vector_store.retrieve(made, ids[::-1])]
        vector_store.delete(made, ids[:2400])
        assert ids[2400:] == [each.id for each in scan(vector_store, made)]

    def test_heavy(self, vector_store: VectorStore, made: str) -> None:
        """A call may write more bytes than a server takes in one request."""
        text = "🙂" * 2**18
        vector_store.upsert(made, [point(each, text=text) for each in range(40)])
        assert [text] * 40 == [each.payload["text"] for each in scan(vector_store, made)]

    def test_only_where_one_of(self, vector_store: VectorStore, made: str) -> None:
        """A set of texts lets a point pass that has one of them; a member of a list counts."""
        before = [point(1, digest="a"), point(2, digest="b"), point(3, digest=["c", "a"]), point(4)]
        vector_store.upsert(made, before)
        new = [point(each, digest="new") for each in (1, 2, 3, 4, 5)]
        one_of: Where = {"digest": frozenset(("a", "z"))}
        vector_store.upsert(made, new, only_where={each.id: one_of for each in new})
        assert {1: "new", 2: "b", 3: "new", 4: None} == {
            each.id: each.payload.get("digest") for each in scan(vector_store, made)
        }
        vector_store.upsert(made, new, only_where={2: {"digest": frozenset()}})
        assert "b" == vector_store.retrieve(made, [2])[0].payload["digest"]


class TestAnyOf:
    LATE = 1_750_000_000_000

    @pytest.fixture
    def filled(self, vector_store: VectorStore, made: str) -> str:
        """The name of a collection of points with times and lists of ids, without an index."""
        vector_store.upsert(
            made,
            [
                point(1, at=self.LATE, ids=["a", "b"]),
                point(2, at=self.LATE + 1, ids=["c"]),
                point(3, at=self.LATE + 2.5),
                point(4, at=[self.LATE - 7, 3]),
                point(5, at=str(self.LATE), ids="a"),
                point(UUID(int=6)),
            ],
        )
        return made

    @pytest.mark.parametrize(
        ("any_of", "expected"),
        [
            (AnyOf(), []),
            (AnyOf(texts={"ids": []}), []),
            (AnyOf(ids=[UUID(int=6), 2, 77]), [2, UUID(int=6)]),
            (AnyOf(texts={"ids": {"a", "z"}}), [1, 5]),
            (AnyOf(ranges={"at": [(LATE, LATE)]}), [1]),
            (AnyOf(ranges={"at": [(LATE, LATE + 2)]}), [1, 2]),
            (AnyOf(ranges={"at": [(3, 3), (LATE + 1, LATE + 2)]}), [2, 4]),
            (AnyOf(ranges={"at": [(LATE + 2, LATE + 3)], "none": [(0, 9)]}), [3]),
            (AnyOf(ranges={"at": [(0, LATE - 7)]}), [4]),
            (AnyOf(lacking=["at"]), [UUID(int=6)]),
            (AnyOf(lacking=["none", "at"]), [1, 2, 3, 4, 5, UUID(int=6)]),
            (AnyOf(ids=[4], texts={"ids": ["c"]}, ranges={"at": [(LATE, LATE)]}), [1, 2, 4]),
        ],
        ids=[
            "nothing",
            "none",
            "ids",
            "texts",
            "moment",
            "ends",
            "several",
            "keys",
            "list",
            "lacking",
            "lacking all",
            "all",
        ],
    )
    def test_matches(
        self, vector_store: VectorStore, filled: str, any_of: AnyOf, expected: list[PointId]
    ) -> None:
        """A point that meets one condition is found, on pages in id order, and no other one is."""
        found = scan(vector_store, filled, any_of=any_of, page_points=1)
        assert expected == [each.id for each in found]
        page = vector_store.scroll(filled, start=None, limit=10, any_of=any_of)
        assert (expected, None) == ([each.id for each in page.points], page.next_start)


class TestPayloads:
    @pytest.mark.parametrize(
        "value",
        [
            TEXT,
            "",
            "\0",
            "x" * 2**20,
            None,
            True,
            0,
            -1,
            2**53 + 1,
            2**63 - 1,
            -(2**63),
            0.1,
            -0.0,
            1.0,
            1e300,
            [],
            {},
            [1, "a", None, [2.5, {}]],
            {"a b.c[0]": {"é": [1, None, {"deep": TEXT}]}},
        ],
        ids=lambda value: repr(value)[:24],
    )
    def test_round_trip(self, vector_store: VectorStore, made: str, value: object) -> None:
        """A JSON value comes back equal and of the same type."""
        vector_store.upsert(made, [point(1, value=value)])
        (found,) = vector_store.retrieve(made, [1])
        assert {"value": value} == found.payload
        assert repr(value) == repr(found.payload["value"])

    def test_empty(self, vector_store: VectorStore, made: str) -> None:
        """A point with an empty payload is kept; reads without vectors return none."""
        vector_store.upsert(made, [point(1)])
        assert [Point(1, {})] == vector_store.retrieve(made, [1])
        assert Page([Point(1, {})], None) == vector_store.scroll(made, start=None, limit=1)

    @pytest.mark.parametrize(
        "bad",
        [
            point(2, value=float("nan")),
            point(2, value=float("inf")),
            point(2, value=2**63),
            point(2, value=-(2**63) - 1),
            point(2, value="\ud800"),
            point(2, value=uuid4()),
            point(2, vector=(float("nan"), 0.0, 0.0)),
            point(2**64),
            point(-1),
            Point(2, {}),
        ],
        ids=["nan", "inf", "big", "small", "surrogate", "uuid", "vector", "id", "sign", "none"],
    )
    def test_refused(self, vector_store: VectorStore, made: str, bad: Point) -> None:
        """Every driver refuses a value that one of them cannot keep, and the whole call with it."""
        with pytest.raises(InvalidInput):
            vector_store.upsert(made, [point(1), bad])
        assert vector_store.count(made) == 0


class TestQueries:
    def test_vectors_by_cosine(self, vector_store: VectorStore, made: str) -> None:
        """Vectors keep their direction; the store may scale them to length one."""
        vector_store.upsert(made, [point(1, (3.0, 4.0, 0.0)), point(2, (0.0, 0.0, 0.0))])
        slanted, zero = vector_store.retrieve(made, [1, 2], vectors=True)
        assert slanted.vector is not None
        length = sqrt(sum(each * each for each in slanted.vector))
        assert pytest.approx([0.6, 0.8, 0.0]) == [each / length for each in slanted.vector]
        assert zero.vector == (0.0, 0.0, 0.0)

    def test_written_back(self, vector_store: VectorStore, made: str) -> None:
        """A point that is read with its vector and written back stays as it was."""
        vector_store.upsert(made, [point(1, (0.1, 0.7, -0.3), a=1)])
        before = vector_store.retrieve(made, [1], vectors=True)
        vector_store.upsert(made, before)
        (kept,), (again,) = before, vector_store.retrieve(made, [1], vectors=True)
        assert kept.vector is not None
        assert pytest.approx(kept.vector, abs=1e-7) == again.vector

    def test_best_first(self, vector_store: VectorStore, made: str) -> None:
        """Hits come best first with their payload, at most `limit`, none under the threshold."""
        vector_store.upsert(made, [point(1, NORTH), point(2, NORTHEAST, a=1), point(3, EAST)])
        hits = vector_store.query(made, EAST, where={}, limit=10)
        assert [3, 2, 1] == [hit.point.id for hit in hits]
        assert pytest.approx([1.0, sqrt(0.5), 0.0], abs=1e-6) == [hit.score for hit in hits]
        assert hits[1].point == Point(2, {"a": 1})
        assert len(vector_store.query(made, EAST, where={}, limit=2)) == 2
        near = vector_store.query(made, EAST, where={}, limit=10, score_threshold=0.5)
        assert [3, 2] == [hit.point.id for hit in near]

    def test_isolation(self, vector_store: VectorStore, made: str) -> None:
        """A filtered query or count sees the points that match the whole filter, and no others."""
        mine, other = str(uuid4()), str(uuid4())
        vector_store.upsert(
            made,
            [
                point(1, NORTH, persona_id=mine, fp1=1),
                point(2, EAST, persona_id=other, fp1=1),
                point(3, EAST, persona_id=mine, fp1=2),
                point(4, EAST),
            ],
        )
        where = {"persona_id": mine}
        hits = vector_store.query(made, EAST, where=where, limit=10)
        assert [3, 1] == [hit.point.id for hit in hits]
        both = vector_store.query(made, EAST, where={**where, "fp1": 1}, limit=10)
        assert [1] == [hit.point.id for hit in both]
        assert vector_store.query(made, EAST, where={"persona_id": str(uuid4())}, limit=10) == []
        assert (4, 2, 1) == (
            vector_store.count(made),
            vector_store.count(made, where),
            vector_store.count(made, {**where, "fp1": 2}),
        )
        assert (2, 1, 0) == (
            vector_store.count(made, ids={1, 2, 77}),
            vector_store.count(made, where, ids=[1, 2]),
            vector_store.count(made, where, ids=[]),
        )
