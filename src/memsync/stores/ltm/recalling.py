"""Searches one persona's memories, and leaves out every point that is not this persona's alone.

It decides whose a point is, and what the log says of one that is left out.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from memsync.errors import InvalidInput, SettingsError
from memsync.model.ids import PersonaId, PersonalityId
from memsync.model.records import Hit, Point, Recollection, StoredMemory, Vector, from_ms
from memsync.model.wording import count, listed
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.vectors import VectorStore

_ASKED_MAX = 16_000
"""A recall asks for at most so many points when those of its persona are hidden among others."""
_NAMED_MAX = 3
_ALIASES_S = 60.0
"""So old may be what is known of aliases, because asking for them at each recall is a call more."""
_LOG = logging.getLogger(__name__)


class Aliases:
    """The names that are aliases in a vector store.

    A collection behind an alias may hold anybody's memories, whatever persona the name has.
    """

    def __init__(self, vectors: VectorStore) -> None:
        self._vectors = vectors
        self._known = frozenset[str]()
        self._known_until = 0.0

    def __contains__(self, name: str) -> bool:
        if time.monotonic() >= self._known_until:
            self._known = frozenset(self._vectors.aliases())
            self._known_until = time.monotonic() + _ALIASES_S
        return name in self._known


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where a persona's memories are searched.

    `is_own`: the collection is this persona's alone, so no filter names the persona, and a point
    that names none is this persona's.
    """

    vectors: VectorStore
    collection: str
    codec: PayloadCodec
    is_own: bool


def search(
    shelf: Shelf,
    vector: Vector,
    *,
    persona_id: PersonaId,
    personality_id: PersonalityId | None,
    limit: int,
    score_threshold: float | None,
) -> list[Recollection]:
    """The persona's memories nearest to `vector`, best first.

    More points are asked for in place of those that are left out, up to a bound, or that of a
    server which refuses to return so many.

    Raises: SchemaMismatch when there is no such collection; DimensionMismatch.
    """
    where: dict[str, str] = {}
    if not shelf.is_own:
        where[shelf.codec.key("persona_id")] = str(persona_id)
    if personality_id is not None:
        where[shelf.codec.key("personality_id")] = str(personality_id)
    asked = limit
    while True:
        try:
            hits = shelf.vectors.query(
                shelf.collection, vector, where=where, limit=asked, score_threshold=score_threshold
            )
        except SettingsError:
            raise
        except InvalidInput:
            if asked == limit:
                raise
            break
        found = [(hit, _read(shelf, hit.point, persona_id)) for hit in hits]
        recalled = (_recollection(hit, memory, persona_id) for hit, memory in found)
        own = [each for each in recalled if each]
        if len(own) >= limit or len(hits) < asked or asked >= _ASKED_MAX:
            break
        asked = min(2 * asked, _ASKED_MAX)
    _warn_of(found, persona_id)
    return own[:limit]


def _read(shelf: Shelf, point: Point, persona_id: UUID) -> StoredMemory:
    return memory_of(shelf.codec, point, is_own=shelf.is_own, persona_id=persona_id)


def memory_of(codec: PayloadCodec, point: Point, *, is_own: bool, persona_id: UUID) -> StoredMemory:
    """The memory in a point. In a persona's own collection one that names nobody is the persona's.

    A payload that names several has no persona.
    """
    reading = codec.decode(point.payload)
    if is_own and not reading.persona_given:
        return replace(reading.memory, persona_id=persona_id)
    return reading.memory


def _recollection(hit: Hit, memory: StoredMemory, persona: PersonaId) -> Recollection | None:
    """The recollection of the point; None unless it is this persona's alone and has a text."""
    if memory.persona_id != persona or (text := memory.text) is None:
        return None
    parted = memory.user_text is not None and memory.assistant_text is not None
    return Recollection(
        id=hit.point.id,
        score=hit.score,
        persona_id=persona,
        personality_id=memory.personality_id,
        channel_id=memory.channel_id,
        created_at=None if memory.created_at_ms is None else from_ms(memory.created_at_ms),
        text=text,
        user_text=memory.user_text or "" if parted else "",
        assistant_text=memory.assistant_text or "" if parted else "",
    )


def _warn_of(found: Sequence[tuple[Hit, StoredMemory]], persona: PersonaId) -> None:
    """Log the ids of what the store returned and recall cannot hand out, and why it cannot."""
    foreign = [hit for hit, memory in found if memory.persona_id != persona]
    wordless = [
        hit for hit, memory in found if memory.persona_id == persona and memory.text is None
    ]
    for hits, why in (
        (foreign, "not of this persona alone"),
        (wordless, "without a text"),
    ):
        if hits:
            _LOG.warning(
                "recall for persona %s left out %s %s: %s. Run `memsync check`",
                persona,
                count(len(hits), "point"),
                why,
                listed([str(hit.point.id) for hit in hits], _NAMED_MAX),
            )
