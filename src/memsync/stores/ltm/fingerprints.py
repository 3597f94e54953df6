"""Fingerprints: what the ledger and the shared collection say of each memory, in a few bits.

A memory's fingerprint is its digest, the two buckets that are cut from it, and its persona. Both
stores can count their memories by bucket and by persona without handing out one of them, so equal
histograms mean equal stores: a change that moves a memory to another digest leaves all three as
they were once in 2^24. This trusts the digest that a payload carries; it is not computed anew.
The statements are in fingerprints.sql.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast
from uuid import UUID

from memsync.model.digests import BUCKET_BITS, buckets
from memsync.model.ids import PointId, point_id_of
from memsync.model.records import Point
from memsync.model.sequences import batched
from memsync.model.wording import count, listed
from memsync.stores.ltm.parts import Part, Seen, look_at
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.postgres import Session
from memsync.stores.vectors import AnyOf, VectorStore, scan

_BATCH = 1000
VALUES_MAX = 100_000
"""Of more personas than these a store is not asked for the numbers."""


class Key(StrEnum):
    """By what memories are counted: a payload key, by its name in the codec."""

    FP1 = "fp1"
    FP2 = "fp2"
    PERSONA = "persona_id"


Value = str | int
Where = Mapping[Key, Collection[Value]]
"""Memories that have one of these values at each of these keys."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a store says of one memory. What it does not say, or says twice, is None."""

    point_id: PointId
    digest: str | None
    fp1: int | None
    fp2: int | None
    persona_id: str | None

    def value(self, key: Key) -> Value | None:
        """The value by which the memory is counted."""
        found: Value | None = getattr(self, key.value)
        return found


class PointPrints:
    """The fingerprints of the points of one collection."""

    def __init__(self, vectors: VectorStore, collection: str, codec: PayloadCodec) -> None:
        self._vectors, self._collection, self._codec = vectors, collection, codec

    def why_not(self) -> str | None:
        """Why its points cannot be counted by their fingerprints; None where they can."""
        info = self._vectors.describe(self._collection)
        if info is None:
            return f"there is no collection {self._collection}"
        if held_back := self._vectors.held_back(self._collection):
            return f"{count(held_back, 'point')} of {self._collection} cannot be read yet"
        wanted, keys = self._codec.indexes, map(self._codec.key, Key)
        if missing := sorted(key for key in keys if info.indexes.get(key) != wanted[key]):
            return f"{self._collection} has no such payload index as it needs of {listed(missing)}"
        return None

    def count(self) -> int:
        """How many points there are."""
        return self._vectors.count(self._collection)

    def histogram(self, key: Key) -> Counter[Value]:
        """How many points have each value, counted by the store.

        The client's local mode also counts values that no index of the key takes.
        """
        most = VALUES_MAX if key is Key.PERSONA else 1 << BUCKET_BITS + 1
        found = self._vectors.facet(self._collection, self._codec.key(key), limit=most)
        return Counter({value: n for value, n in found.items() if _is_value(key, value)})

    def lacking(self) -> Iterator[Fingerprint]:
        """The points that have no value at one of the keys."""
        lacking = [self._codec.key(each) for each in Key]
        yield from map(
            self._print, scan(self._vectors, self._collection, any_of=AnyOf(lacking=lacking))
        )

    def where(self, where: Where) -> Iterator[Fingerprint]:
        """The points that have these values, read one by one."""
        # The values of one key are of one type.
        conditions = {
            self._codec.key(key): cast("frozenset[str]", frozenset(some))
            for key, some in where.items()
        }
        yield from map(self._print, scan(self._vectors, self._collection, where=conditions))

    def of(self, ids: Iterable[PointId]) -> Iterator[Fingerprint]:
        """Those of these points that stand."""
        for some in batched(ids, _BATCH):
            yield from map(self._print, self._vectors.retrieve(self._collection, some))

    def look_at(self, part: Part, took: Callable[[int], object]) -> Seen:
        """Compare the points of a part with its exchanges; see `parts.look_at`."""
        return look_at(self._vectors, self._collection, self._codec, part, took)

    def _print(self, point: Point) -> Fingerprint:
        digest, fp1, fp2 = (point.payload.get(self._codec.key(k)) for k in ("digest", "fp1", "fp2"))
        # The raw value counts: another spelling of the key is in no histogram.
        persona = point.payload.get(self._codec.key(Key.PERSONA))
        return Fingerprint(
            point.id,
            digest if isinstance(digest, str) else None,
            fp1 if type(fp1) is int else None,
            fp2 if type(fp2) is int else None,
            _uuid(persona) if isinstance(persona, str) else None,
        )


class LedgerPrints:
    """The fingerprints of the memories that stand in one collection by the ledger."""

    def __init__(self, session: Session, collection: str) -> None:
        self._session, self._collection = session, collection
        self._counted: dict[Key, Counter[Value]] | None = None

    def histogram(self, key: Key) -> Counter[Value]:
        """How many memories have each value. All keys are counted at once."""
        if self._counted is None:
            self._counted = {each: Counter() for each in Key}
            for row in self._session.rows("ledger_histograms", collection=self._collection):
                for each in Key:
                    value = getattr(row, each.value)
                    if value is not None:
                        self._counted[each][_plain(value)] = row.memories
        return self._counted[key]

    def where(self, where: Where) -> Iterator[Fingerprint]:
        """The memories that have these values."""
        rows = self._session.rows(
            "ledger_prints",
            collection=self._collection,
            fp1=_listed(where, Key.FP1),
            fp2=_listed(where, Key.FP2),
            personas=_listed(where, Key.PERSONA),
        )
        yield from map(_print, rows)

    def of(self, ids: Iterable[PointId]) -> Iterator[Fingerprint]:
        """Those of these memories that stand."""
        rows = self._session.rows(
            "ledger_prints_of", collection=self._collection, ids=list(map(str, ids))
        )
        yield from map(_print, rows)


def can_compute_digests(session: Session) -> bool:
    """Whether Postgres has the function for digests, and this role may call it."""
    can: bool = session.row("can_compute_digests").can
    return can


def _is_value(key: Key, value: Value) -> bool:
    """Whether the ledger may have such a value."""
    if key is not Key.PERSONA:
        return type(value) is int
    return _uuid(str(value)) == value


def _uuid(text: str) -> str | None:
    """The uuid in its usual spelling, as an index has it; None for another text."""
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _listed(where: Where, key: Key) -> list[Value] | None:
    return list(where[key]) if key in where else None


def _plain(value: UUID | int) -> Value:
    return value if isinstance(value, int) else str(value)


def _print(row: Any) -> Fingerprint:
    digest: str = row.digest
    return Fingerprint(
        point_id_of(row.point_id),
        digest,
        *buckets(digest),
        row.persona_id and str(row.persona_id),
    )
