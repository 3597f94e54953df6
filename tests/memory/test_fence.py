"""A relay that lost its lock, or that races somebody else, never replaces what is newer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from qdrant_client import models

from memsync.errors import InvalidInput, PartlyDone, SchemaMismatch, StoreUnreachable
from memsync.memory import Drained, outbox_status, relay
from memsync.model.ids import PointId
from memsync.model.records import Point
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.embedders import Embedder
from memsync.stores.ltm.layouts import Layout
from memsync.stores.vectors.protocol import AnyOf, CollectionInfo, Ids, Page, VectorStore, Where
from support.failing import Failing
from support.lab import DIMS, STORES, Lab, embed
from support.releasing import drain, released

LOSE = """SELECT pg_terminate_backend(pid) FROM pg_locks l JOIN pg_database d ON d.oid = database
WHERE datname = current_database() AND locktype = 'advisory' AND classid = x'6d656d73'::int"""


@pytest.fixture(params=[*STORES, "per persona"])
def any_lab(request: pytest.FixtureRequest, open_lab: "partial[Lab]") -> Lab:
    """A lab on each store, and one in the per-persona layout."""
    if "per persona" == request.param:
        return open_lab(layout="per-persona", writer="memsync")
    return open_lab(request.param)


def once(act: Callable[[], object]) -> Callable[[Sequence[str]], list[list[float]]]:
    """A model that acts at its first texts, and then embeds."""
    acts = [act]

    def model(texts: Sequence[str]) -> list[list[float]]:
        if texts != ["dimensions"] and acts:
            acts.pop()()
        return embed(texts)

    return model


def slow(lab: Lab, act: Callable[[], object]) -> LongTermMemory:
    """Long-term memory that acts between its reads and its writes."""
    model: Any = Embedder("test", once(act))
    return LongTermMemory(lab.vectors, lab.settings, model, lab.ltm.layout)


def edit(lab: Lab, anchor: UUID, text: str) -> None:
    """Change the reply, and queue its memory."""
    lab.sql("UPDATE conversation_history SET content = %(t)s WHERE id = %(i)s", t=text, i=anchor)
    lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(i)s)", i=anchor)


def texts(lab: Lab) -> list[str]:
    """The text of every memory."""
    found = lab.points()
    return [
        str(lab.ltm.codec_of(name).decode(payload).memory.text)  # type: ignore[arg-type]
        for name in found
        for _, payload, _ in found[name]
    ]


@pytest.mark.parametrize("stands", [False, True], ids=["absent", "stands"])
def test_a_relay_that_lost_its_lock_replaces_nothing_newer(any_lab: Lab, *, stands: bool) -> None:
    """While it embeds, its session ends and another relay writes the newer text, which stays."""
    [said] = any_lab.say()
    if stands:
        any_lab.sync()
        edit(any_lab, said.anchor_id, "answer two")

    def lose() -> None:
        with released(any_lab.url):
            any_lab.sql(LOSE)
        edit(any_lab, said.anchor_id, "answer three")
        assert 2 == drain(any_lab.postgres, any_lab.ltm).entries

    with pytest.raises(StoreUnreachable):
        drain(any_lab.postgres, slow(any_lab, lose))
    [text] = texts(any_lab)
    assert text.endswith("answer three")
    assert 0 == outbox_status(any_lab.postgres).pending


@pytest.mark.parametrize("stands", [False, True], ids=["absent", "stands"])
def test_a_relay_that_lost_its_lock_while_it_looked(any_lab: Lab, *, stands: bool) -> None:
    """What it read of the exchange before it saw the newer memory is not written over that."""
    [said] = any_lab.say()
    if stands:
        any_lab.sync()
        edit(any_lab, said.anchor_id, "answer two")

    def lose(name: str) -> None:
        if name in {"retrieve", "scroll"} and looks:
            looks.pop()
            with released(any_lab.url):
                any_lab.sql(LOSE)
            edit(any_lab, said.anchor_id, "answer three")
            drain(any_lab.postgres, any_lab.ltm)

    looks = [1]
    if any_lab.ltm.layout is Layout.PER_PERSONA and not stands:
        any_lab.vectors.create(any_lab.ltm.home_of(said.persona_id), DIMS, {})
    with pytest.raises(StoreUnreachable):
        drain(any_lab.postgres, any_lab.with_store(Failing(any_lab.vectors, meanwhile=lose)))
    [text] = texts(any_lab)
    assert text.endswith("answer three")


def test_what_changes_between_two_reads_is_read_again(any_lab: Lab) -> None:
    """A memory that is newer than the exchange that the relay has read is not replaced by it."""
    [said] = any_lab.say()
    any_lab.sync()
    edit(any_lab, said.anchor_id, "answer two")
    looks = [1]

    def overtake(name: str) -> None:
        if name in {"retrieve", "scroll"} and looks:
            looks.pop()
            edit(any_lab, said.anchor_id, "answer three")
            any_lab.sql("DELETE FROM memsync.outbox WHERE attempts = 0")
            with any_lab.postgres.session() as session:
                any_lab.ltm.project(session, [said.anchor_id], lambda _: {})

    drain(any_lab.postgres, any_lab.with_store(Failing(any_lab.vectors, meanwhile=overtake)))
    [text] = texts(any_lab)
    assert text.endswith("answer three")
    assert 0 == outbox_status(any_lab.postgres).pending


@pytest.mark.parametrize("stands", [False, True], ids=["absent", "stands"])
def test_a_point_that_somebody_wrote_meanwhile_is_looked_at_again(
    any_lab: Lab, *, stands: bool
) -> None:
    """What another writer put there is not taken for the memory: it is read, and then replaced."""
    [said] = any_lab.say()
    home = any_lab.ltm.home_of(said.persona_id)
    any_lab.sync()
    before = any_lab.points()
    other = {**any_lab.point(said.anchor_id, home).payload, "channel_id": "9", "digest": "other"}
    other |= {"content": "User (x): other\nAda: other"} if "content" in other else {}
    if not stands:
        any_lab.vectors.delete(home, [said.anchor_id])
    any_lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(i)s)", i=said.anchor_id)

    def meanwhile() -> None:
        any_lab.put(said.anchor_id, other, home)

    drained = drain(any_lab.postgres, slow(any_lab, meanwhile))
    if "content" in other and stands:
        # Per persona a memory that says the exchange is left, so there was nothing to embed.
        assert (Drained(1, 0), before) == (drained, any_lab.points())
        return
    assert Drained(1, 1) == drained
    assert before == any_lab.points()


@pytest.mark.parametrize("layout", ["shared", "per-persona"])
def test_what_changes_while_it_is_embedded(open_lab: "partial[Lab]", layout: str) -> None:
    """A deleted exchange leaves no memory, and an edited one its newer text, without an entry."""
    lab = open_lab(layout=layout, writer="memsync")
    gone, edited, other = lab.say(3)

    def meanwhile() -> None:
        lab.unsay(gone)
        edit(lab, edited.anchor_id, "answer two")
        lab.sql("DELETE FROM memsync.outbox WHERE attempts = 0")

    assert Drained(3, 2) == drain(lab.postgres, slow(lab, meanwhile))
    told = [text.rpartition(" ")[2] for text in texts(lab)]
    assert sorted(["two", other.assistant_text.rpartition(" ")[2]]) == sorted(told)
    assert lab.check().ok


def test_points_without_a_digest_are_fenced_too(any_lab: Lab) -> None:
    """The memory of an earlier build has none: its texts and numbers are the condition."""
    [said, other] = any_lab.say(2)
    any_lab.sync()
    home = any_lab.ltm.home_of(said.persona_id)
    for each in (said, other):
        old = {**any_lab.point(each.anchor_id, home).payload, "content": "old"}
        any_lab.put(each.anchor_id, {k: v for k, v in old.items() if k != "digest"}, home)
        any_lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(i)s)", i=each.anchor_id)
    put = partial(any_lab.put, said.anchor_id, {"content": "newer"}, home)
    assert Drained(2, 2) == drain(any_lab.postgres, slow(any_lab, put))
    assert {"old", "newer"}.isdisjoint(texts(any_lab))
    assert 2 == any_lab.vectors.count(home)


def test_somebody_who_never_stops_holds_one_entry_only(lab: Lab) -> None:
    """Such an entry costs no attempt; the others are written, and the run says what is held."""
    said, _ = lab.say(2)

    def disturb(name: str) -> None:
        if name in {"retrieve", "count"} and lab.vectors.count(lab.home):
            lab.put(said.anchor_id, {"digest": str(lab.new_id())})

    with pytest.raises(PartlyDone, match="1 outbox entry is held: somebody else writes") as left:
        drain(lab.postgres, lab.with_store(Failing(lab.vectors, meanwhile=disturb)))
    assert (1, 1) == (left.value.fields["done"], left.value.fields["held"])
    assert [(0, False)] == lab.sql("SELECT attempts, dead FROM memsync.outbox")
    lab.sql("UPDATE memsync.outbox SET next_attempt_at = now()")
    with released(lab.url):
        assert Drained(1, 1) == relay.drain(lab.postgres, lab.ltm)
    assert lab.check().ok


class Choosy(Failing):
    """A server that looks at the conditions of a request before it does anything."""

    def require(self, collection: str, where: Where) -> None:
        """Refuse the condition."""
        raise NotImplementedError

    def upsert(
        self,
        collection: str,
        points: Sequence[Point],
        *,
        only_where: Mapping[PointId, Where] | None = None,
        **more: Any,
    ) -> None:
        for where in (only_where or {}).values():
            self.require(collection, where)
        super().upsert(collection, points, only_where=only_where, **more)

    def count(self, collection: str, where: Where | None = None, *, ids: Ids = None) -> int:
        self.require(collection, where or {})
        return super().count(collection, where, ids=ids)


class Strict(Choosy):
    """One that refuses conditions on keys without an index."""

    def describe(self, collection: str) -> CollectionInfo | None:
        found = super().describe(collection)
        return found and replace(found, needs_indexes=True)

    def require(self, collection: str, where: Where) -> None:
        """Refuse one on such a key."""
        info = self.store.describe(collection)
        if info and (odd := where.keys() - info.indexes.keys()):
            raise SchemaMismatch(f"index required: {odd}")

    def scroll(self, collection: str, *, any_of: AnyOf | None = None, **more: Any) -> Page:
        if any_of:
            self.require(collection, {**any_of.texts, **any_of.ranges})  # type: ignore[dict-item]
        return super().scroll(collection, any_of=any_of, **more)


class Bounded(Choosy):
    """One that bounds what a request may ask for."""

    def require(self, collection: str, where: Where) -> None:  # noqa: ARG002  the same everywhere
        """Refuse one with more than three values."""
        if any(isinstance(each, frozenset) and len(each) > 3 for each in where.values()):
            raise InvalidInput("Condition size limit reached")

    def scroll(
        self, collection: str, *, limit: int, any_of: AnyOf | None = None, **more: Any
    ) -> Page:
        if limit > 10 or (any_of and len(any_of.ids) > 3):
            raise InvalidInput("Limit exceeded")
        return super().scroll(collection, limit=limit, any_of=any_of, **more)


@pytest.mark.parametrize("layout", ["shared", "per-persona"])
def test_a_server_is_asked_for_less_where_it_bounds_that(
    open_lab: "partial[Lab]", layout: str
) -> None:
    """New memories and edited ones are written, and the app's own is found."""
    lab = open_lab(layout=layout, writer="memsync")
    ltm = lab.with_store(Bounded(lab.vectors))
    lab.say(11)
    assert Drained(11, 11) == drain(lab.postgres, ltm)
    for each in lab.said:
        edit(lab, each.anchor_id, "answer two")
    [last] = lab.say()
    if layout == "per-persona":
        lab.deploy(last)
    drained = drain(lab.postgres, ltm)
    assert 12 == drained.entries
    assert 11 == sum("answer two" in each for each in texts(lab))
    assert 12 == sum(map(len, lab.points().values()))


def strict(lab: Lab, collection: str) -> VectorStore:
    """The lab's store, in strict mode: a server's own, or one that is played."""
    store: Any = lab.vectors
    if store._local:
        return Strict(lab.vectors)
    mode = models.StrictModeConfig(
        enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False
    )
    store._client.update_collection(collection, strict_mode_config=mode)
    return lab.vectors


@pytest.mark.parametrize("store", ["memory", "server"])
@pytest.mark.parametrize("layout", ["shared", "per-persona"])
def test_a_strict_server_is_asked_by_indexed_keys_only(
    open_lab: "partial[Lab]", store: str, layout: str
) -> None:
    """Memories are replaced there, and one that somebody writes meanwhile is kept first."""
    lab = open_lab(store, layout=layout, writer="memsync")
    first, second = lab.say(2)
    lab.sync()
    edit(lab, first.anchor_id, "answer two")
    edit(lab, second.anchor_id, "answer two")
    home = lab.place(second).collection
    newer = {**lab.point(second.anchor_id, home).payload, "fp1": -1, "note": "newer"}
    acts: list[Callable[[], object]] = []
    if layout == "shared":
        acts.append(lambda: lab.put(second.anchor_id, newer, home))
    ltm = slow(lab, lambda: [act() for act in acts])
    there = strict(lab, home)
    ltm = LongTermMemory(there, lab.settings, ltm.embedder, lab.ltm.layout)
    assert 2 == drain(lab.postgres, ltm).entries
    assert 2 == sum("answer two" in each for each in texts(lab))
    kept = lab.sql("SELECT payload ->> 'note' FROM memsync.quarantine")
    assert [("newer",)] * len(acts) == kept
