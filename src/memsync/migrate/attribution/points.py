"""Reads the points of a vector store as rows that can be joined with the history.

This module decides which collections hold memories, and which points say enough to be evidence: a
persona, a personality, a time and a text. It knows nothing of the history, and only reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from uuid import UUID

from memsync.errors import InvalidInput
from memsync.model.progress import Kind, Progress, Tell
from memsync.model.records import Point, from_ms, storable_text
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import (
    CollectionKind,
    persona_of_collection,
    personality_of_collection,
)
from memsync.stores.ltm.payload import PayloadCodec

COLUMNS = (
    "source",
    "kind",
    "memory",
    "earliest",
    "latest",
    "personality_id",
    "persona_id",
    "user_text",
    "assistant_text",
    "content",
)
"""The columns of memsync_points, in the order of a row."""

Row = tuple[object, ...]


_OF_MEMORIES = frozenset(
    (CollectionKind.SHARED, CollectionKind.PERSONA, CollectionKind.PERSONALITY)
)
"""The kinds of collections whose memories say who spoke. Those set aside by the app do not."""


@dataclass(slots=True)
class Counted:
    """How much was read of one kind of collection. Unusable points say too little."""

    collections: int = 0
    points: int = 0
    unusable: int = 0


class Reading:
    """One pass over all memories of a store; `counts` and `left_out` grow as rows are taken."""

    def __init__(self, ltm: LongTermMemory, tell: Tell) -> None:
        self.counts: dict[CollectionKind, Counted] = {}
        self.left_out = 0
        self._ltm = ltm
        self._tell = tell

    def rows(self) -> Iterator[Row]:
        """Every point that says enough, as a row of memsync_points.

        Raises: the vector store's error.
        """
        names = self._ltm.collections()
        kinds = {n: kind for n in names if (kind := self._ltm.kind_of(n)) in _OF_MEMORIES}
        self.left_out = len(names) - len(kinds)
        for number, (name, kind) in enumerate(kinds.items(), start=1):
            counted = self.counts.setdefault(kind, Counted())
            counted.collections += 1
            reader = _Reader(
                name,
                kind,
                self._ltm.codec_of(name),
                persona_of_collection(name),
                personality_of_collection(name),
            )
            for point in self._ltm.scan(name):
                counted.points += 1
                row = reader.row(point)
                if row is None:
                    counted.unusable += 1
                else:
                    yield row
            self._tell(Progress(Kind.STEP, "read evidence", number, len(kinds)))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the points of one collection, whose name may give their persona or personality."""

    collection: str
    kind: CollectionKind
    codec: PayloadCodec
    persona_id: UUID | None
    personality_id: UUID | None

    def row(self, point: Point) -> Row | None:
        """The point as a row of memsync_points; None when a value is missing or contradictory."""
        reading = self.codec.decode(point.payload)
        memory, window = reading.memory, reading.time_window_ms
        persona = _agreed(self.persona_id, memory.persona_id)
        personality = _agreed(self.personality_id, memory.personality_id)
        if window is None or persona is None or personality is None:
            return None
        if reading.names_several_personas or reading.texts_disagree:
            return None
        try:
            # No message contains this: it is no text, or Postgres cannot store it.
            storable_text(memory.text, "text")
        except InvalidInput:
            return None
        both = reading.two_texts or (memory.user_text, memory.assistant_text)
        texts = (None, None, memory.content) if None in both else (*both, None)
        # Copies of one memory are one statement, not several that could contradict each other.
        said = repr((persona.hex, personality.hex, window, texts)).encode()
        first, last = (from_ms(ms).replace(tzinfo=None) for ms in window)
        return (
            f"{self.collection}/{point.id}",
            self.kind.value,
            UUID(bytes=blake2b(said, digest_size=16).digest()),
            first,
            last,
            personality,
            persona,
            *texts,
        )


def _agreed(of_collection: UUID | None, of_payload: UUID | None) -> UUID | None:
    """The id that both give, or the only one given; None where they contradict each other."""
    if of_collection and of_payload and of_collection != of_payload:
        return None
    return of_collection or of_payload
