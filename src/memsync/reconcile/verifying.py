"""Reads the vectors of memories for an audit, and embeds their texts anew where that proves much.

It decides whose vectors are looked at, and which of them can be compared with the named embedder:
in the shared layout those of memories that say that it made them, in the per-persona layout all,
because there the setting says so. It judges nothing; the rules in `rules/vectors.py` do. What could
not be read or embedded is told, because the audit is incomplete then. Memory is bounded by the
size of the sample, or by a batch where all are looked at.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from memsync.errors import MemsyncError, SchemaMismatch, StoreUnreachable
from memsync.model.digests import point_state
from memsync.model.ids import PointId
from memsync.model.records import Place, Point, Vector, ids_by_collection
from memsync.model.sequences import batched
from memsync.model.vectors import cosine, not_finite, squared_length, vector_state
from memsync.model.wording import count
from memsync.reconcile.cases import Case, Found
from memsync.reconcile.findings import Finding
from memsync.reconcile.reading import Read, read_points
from memsync.reconcile.seen_vectors import SeenVector, Verified, Verify
from memsync.settings import Settings
from memsync.stores.ltm import Embedder, Failure, LongTermMemory
from memsync.stores.ltm.layouts import Layout

_BATCH = 256


class Verifier:
    """Looks at the vectors of one audit; at none where `verify` is None."""

    def __init__(self, ltm: LongTermMemory, settings: Settings, verify: Verify | None) -> None:
        self._ltm = ltm
        self._is_named = "embedder" in settings.model_fields_set
        self._verify = verify
        self._why_not_compared: str | None = None
        self._unread: dict[str, str] = {}
        self._unread_points: Counter[str] = Counter()
        self._refused, self._first_refusal = 0, ""
        self._memories = self._looked_at = self._compared = self._not_compared = 0

    def looked(self, cases: Iterable[Case]) -> Iterator[Case]:
        """The same cases, each once; those whose vectors were looked at say what was seen."""
        if self._verify is None:
            yield from cases
        elif self._verify.count is None:
            yield from self._all(cases)
        else:
            yield from self._sample(cases, self._verify.count, self._verify.seed)

    def states(self, findings: Iterable[Finding]) -> dict[Place, str | None]:
        """The states of the vectors that these findings are about, as they are now.

        One that cannot be read any more has none, and is in `not_checked`.
        """
        seen = (each.witness for each in findings if each.witness.vector is not None)
        ids = ids_by_collection(each.place for each in seen if each.place is not None)
        return {
            Place(collection, point_id): vector_state(point.vector)
            for collection, those in ids.items()
            for some in batched(those, _BATCH)
            for point_id, point in self._noted(collection, some).points.items()
        }

    @property
    def looks_at_all(self) -> bool:
        """Whether no vector is left out."""
        return self._verify is not None and self._verify.count is None

    @property
    def verified(self) -> Verified | None:
        """How much was looked at; None where nobody asked for it."""
        if self._verify is None:
            return None
        seed = None if self._verify.count is None else self._verify.seed
        return Verified(self._memories, self._looked_at, self._compared, seed)

    @property
    def not_checked(self) -> Iterator[str]:
        """What could not be read or compared, and why."""
        for name, why in sorted(self._unread.items()):
            number = count(self._unread_points[name], "vector")
            yield f"vectors of {name}: {number} could not be read: {why}"
        if self._not_compared:
            number = count(self._not_compared, "vector was", "vectors were")
            yield f"vectors: {number} not compared with the embedder: {self._why_not_compared}"
        if self._refused:
            number = count(self._refused, "text")
            yield f"vectors: the embedder refuses {number}, the first: {self._first_refusal}"

    # ------------------------------------------------------------------ which

    def _all(self, cases: Iterable[Case]) -> Iterator[Case]:
        waiting: list[Case] = []
        for case in cases:
            if not self._is_memory(case):
                yield case
                continue
            waiting.append(case)
            if len(waiting) == _BATCH:
                yield from self._with_vectors(waiting)
                waiting.clear()
        yield from self._with_vectors(waiting)

    def _sample(self, cases: Iterable[Case], wanted: int, seed: int) -> Iterator[Case]:
        """Those with the least ranks, whatever order the cases come in."""
        chosen: list[tuple[int, str, Case]] = []
        for case in cases:
            if not self._is_memory(case):
                yield case
                continue
            place = str(_found(case).place)
            ranked = (-_rank(seed, place), place, case)
            if len(chosen) < wanted:
                heapq.heappush(chosen, ranked)
            else:
                *_, left_out = heapq.heappushpop(chosen, ranked)
                yield left_out
        in_order = sorted(chosen, key=lambda each: each[1])
        for some in batched((case for *_, case in in_order), _BATCH):
            yield from self._with_vectors(some)

    def _is_memory(self, case: Case) -> bool:
        """Whether it is a point that recall may find; counts those that are."""
        is_one = case.found is not None and case.found.home
        self._memories += is_one
        return is_one

    # ------------------------------------------------------------------ what

    def _with_vectors(self, cases: Sequence[Case]) -> Iterator[Case]:
        by_collection: dict[str, list[Case]] = {}
        for case in cases:
            by_collection.setdefault(_found(case).place.collection, []).append(case)
        seen: list[tuple[Case, Vector]] = []
        for collection, some in by_collection.items():
            for case, vector in self._read(collection, some):
                if case.vector is None:
                    yield case
                else:
                    seen.append((case, vector))
        self._looked_at += len(seen)
        yield from self._with_cosines(seen)

    def _read(self, collection: str, cases: Sequence[Case]) -> Iterator[tuple[Case, Vector]]:
        """The cases with what was seen of their vectors; without, where that was not read."""
        dims, read = self._of(collection, [_found(case).place.point_id for case in cases])
        self._note(collection, read)
        for case in cases:
            point = read.points.get(_found(case).place.point_id)
            # A point that changed since is the next audit's: the vector may be of another text.
            if point is None or not _is_as_found(point, case):
                yield case, ()
            else:
                vector = point.vector or ()
                yield replace(case, vector=self._seen(vector, dims, case.layout)), vector

    def _noted(self, collection: str, ids: Sequence[PointId]) -> Read:
        """These points with their vectors. Notes what could not be read."""
        read = read_with_vectors(self._ltm, collection, ids)
        self._note(collection, read)
        return read

    def _note(self, collection: str, read: Read) -> None:
        if read.unread:
            self._unread.setdefault(collection, next(iter(read.unread.values())))
            self._unread_points[collection] += len(read.unread)

    def _of(self, collection: str, ids: Sequence[PointId]) -> tuple[int, Read]:
        """The size of the collection's vectors, and the points with theirs."""
        try:
            info = self._ltm.describe(collection)
        except (StoreUnreachable, SchemaMismatch) as error:
            return 0, Read({}, dict.fromkeys(ids, error.message))
        if info is None:
            # It was dropped since, and what it held is gone.
            return 0, Read({})
        return info.dims, read_with_vectors(self._ltm, collection, ids)

    def _seen(self, vector: Vector, dims: int, layout: Layout) -> SeenVector:
        return SeenVector(
            state=str(vector_state(vector)),
            size=len(vector),
            expected=dims,
            not_finite=not_finite(vector),
            squared_length=squared_length(vector),
            can_be_made=layout is Layout.SHARED or self._makes(dims),
        )

    @cached_property
    def _embedder(self) -> Embedder | None:
        """The embedder, if the settings name one and it can be loaded."""
        if not self._is_named:
            return None
        try:
            return self._ltm.embedder
        except MemsyncError as error:
            self._why_not_compared = error.message
            return None

    def _makes(self, dims: int) -> bool:
        """Whether the settings name an embedder that makes vectors of this size."""
        return self._embedder is not None and self._embedder.dims == dims

    # ------------------------------------------------------------------ whether it is the text's

    def _with_cosines(self, seen: Sequence[tuple[Case, Vector]]) -> Iterator[Case]:
        wanted = ((number, self._text(case)) for number, (case, _) in enumerate(seen))
        texts = {number: text for number, text in wanted if text}
        made = self._embedded(list(texts.values()))
        anew = dict(zip(texts, made, strict=True))
        for number, (case, vector) in enumerate(seen):
            outcome = anew.get(number)
            if case.vector is None or outcome is None or isinstance(outcome, Failure):
                yield case
                continue
            self._compared += 1
            yield replace(case, vector=replace(case.vector, cosine=cosine(vector, outcome)))

    def _text(self, case: Case) -> str | None:
        """The text that the vector was made from, if the named embedder made it of that text.

        A payload holds the text that was embedded, in each form: a memory that was brought from the
        app's collections keeps the app's text beside the app's vector.
        """
        found, vector, embedder = _found(case), case.vector, self._embedder
        if vector is None or not vector.is_usable or not self._is_named:
            return None
        if embedder is None:
            self._not_compared += 1
            return None
        said = found.point.payload.get(found.codec.key("embedder"))
        if case.layout is Layout.SHARED and said != embedder.name:
            return None
        return found.reading.memory.text if self._makes(vector.expected) else None

    def _embedded(self, texts: Sequence[str]) -> Sequence[Vector | Failure | None]:
        """The vectors of these texts. After an outage nothing more is asked for."""
        if not texts or self._embedder is None or self._why_not_compared is not None:
            self._not_compared += len(texts)
            return [None] * len(texts)
        made = self._embedder.each(texts)
        for each in made:
            if isinstance(each, StoreUnreachable):
                self._why_not_compared = each.message
                self._not_compared += 1
            elif isinstance(each, Failure):
                self._first_refusal = self._first_refusal or each.message
                self._refused += 1
        return made


def read_with_vectors(ltm: LongTermMemory, collection: str, ids: Sequence[PointId]) -> Read:
    """These points with their vectors. One that cannot be read costs itself, an outage all."""
    try:
        return read_points(ltm, collection, ids, vectors=True)
    except StoreUnreachable as error:
        return Read({}, dict.fromkeys(ids, error.message))


def _rank(seed: int, place: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {place}".encode()).digest()[:8])


def _found(case: Case) -> Found:
    if case.found is None:
        raise AssertionError("a case without a point has no vector")
    return case.found


def _is_as_found(point: Point, case: Case) -> bool:
    return point_state(point) == point_state(_found(case).point)
