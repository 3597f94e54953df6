"""The payload codec: turns an exchange into a point's payload, and any payload into a memory.

Decides the spelling of every payload key in both styles. A payload that the app wrote (with `text`,
`timestamp`, seconds or floats) becomes a memory and a list of what was wrong; callers judge that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from memsync.errors import InvalidInput
from memsync.model import ids
from memsync.model.digests import buckets, content_digest, exchange_digest, memory_digest
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Point, StoredMemory
from memsync.stores.vectors import IndexKind

Style = Literal["snake", "camel"]

_CAMEL = {
    "persona_id": "personaId",
    "personality_id": "personalityId",
    "channel_id": "channelId",
    "created_at": "createdAt",
    "user_text": "userText",
    "assistant_text": "assistantText",
    "content": "content",
    "text_form": "textForm",
    "digest": "digest",
    "fp1": "fp1",
    "fp2": "fp2",
    "embedder": "embedder",
}
_INDEXED = {
    "persona_id": IndexKind.TENANT,
    "personality_id": IndexKind.UUID,
    "channel_id": IndexKind.KEYWORD,
    "fp1": IndexKind.INTEGER,
    "fp2": IndexKind.INTEGER,
}
# The years 1 to 9999: the range of datetime, well within that of Postgres' timestamp.
_MS_MIN, _MS_MAX = -62_135_596_800_000, 253_402_300_799_999
# A smaller number is taken for seconds: as seconds the limit is in 5138, as milliseconds in 1973.
_SECONDS_BELOW = 100_000_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """The memory in a payload, and what was wrong with the payload.

    `wrong_keys` are keys that this style does not use. `wrong_unit` is true for a time that is not
    an integer of milliseconds. `time_window_ms` is the first and last millisecond it may mean.
    `names_several_personas`: it has a list of them, or two spellings of the key that differ; the
    memory has no persona then, because Qdrant gives it to the filter of each.
    """

    memory: StoredMemory
    wrong_keys: tuple[str, ...] = ()
    wrong_unit: bool = False
    time_window_ms: tuple[int, int] | None = None
    names_several_personas: bool = False


class PayloadCodec:
    """Writes payloads in one style; reads both."""

    def __init__(self, style: Style) -> None:
        self._spell = {key: _CAMEL[key] if style == "camel" else key for key in _CAMEL}

    def key(self, name: str) -> str:
        """How this style spells the payload key `name`."""
        return self._spell[name]

    @property
    def indexes(self) -> dict[str, IndexKind]:
        """The payload keys that must be indexed, and how."""
        return {self._spell[name]: kind for name, kind in _INDEXED.items()}

    def encode(self, exchange: Exchange, embedder: str) -> dict[str, object]:
        """The payload of the memory of `exchange`, whose vector `embedder` made."""
        digest = exchange_digest(exchange)
        fp1, fp2 = buckets(digest)
        values = {
            "persona_id": str(exchange.persona_id),
            "personality_id": str(exchange.personality_id),
            "channel_id": exchange.channel_id,
            "created_at": exchange.created_at_ms,
            "user_text": exchange.user_text,
            "assistant_text": exchange.assistant_text,
            "digest": digest,
            "fp1": fp1,
            "fp2": fp2,
            "embedder": embedder,
        }
        return {self._spell[name]: value for name, value in values.items()}

    def restyled(self, payload: Mapping[str, object], embedder: str) -> dict[str, object]:
        """An app's payload in this style: known keys respelled, values cleaned, the rest kept."""
        reading = self.decode(payload)
        memory = reading.memory
        known = {"text", "timestamp", *_CAMEL, *_CAMEL.values()}
        kept = {key: value for key, value in payload.items() if key not in known}
        values = {
            "persona_id": memory.persona_id and str(memory.persona_id),
            "personality_id": memory.personality_id and str(memory.personality_id),
            "channel_id": memory.channel_id,
            "created_at": memory.created_at_ms,
            "user_text": memory.user_text,
            "assistant_text": memory.assistant_text,
            "content": memory.content,
            "text_form": None if memory.content is None else "deployed",
            "embedder": embedder,
        }
        return kept | {self._spell[k]: v for k, v in values.items() if v is not None}

    def archived(
        self, point: Point, *, persona_id: UUID | None, embedder: str
    ) -> dict[str, object]:
        """The payload, in this style, of an app's memory whose exchange is no longer kept.

        Its text stays as it is; `text_form` says that it is the app's. `persona_id` is the persona
        of its collection, and replaces the payload's. A digest is added if id and payload have all
        that it is computed from.
        """
        payload = self.restyled(point.payload, embedder)
        if persona_id is not None:
            payload[self.key("persona_id")] = str(persona_id)
        digest = _archived_digest(point.id, self.decode(payload).memory)
        if digest:
            fp1, fp2 = buckets(digest)
            payload |= {self.key("digest"): digest, self.key("fp1"): fp1, self.key("fp2"): fp2}
        return payload

    def decode(self, payload: Mapping[str, object]) -> Reading:
        """Read a payload of either style. Wrong keys and values are reported and never raise."""
        wrong = [key for key in ("text", "timestamp") if key in payload]
        wrong += [
            spelled
            for spelled in dict.fromkeys((*_CAMEL, *_CAMEL.values()))
            if spelled in payload and spelled not in self._spell.values()
        ]
        # The key in this style comes first, because filters look at that one.
        at = self._either(payload, "created_at")
        at = payload.get("timestamp") if at is None else at
        window, wrong_unit = _time_window(at)
        persona_id, several = self._persona(payload)
        user_text = _text(self._either(payload, "user_text"))
        assistant_text = _text(self._either(payload, "assistant_text"))
        both = user_text is not None and assistant_text is not None
        memory = StoredMemory(
            persona_id=persona_id,
            personality_id=_uuid(self._either(payload, "personality_id")),
            channel_id=_text(self._either(payload, "channel_id")),
            created_at_ms=None if window is None else window[0],
            user_text=user_text,
            assistant_text=assistant_text,
            # Where both texts are there, they count.
            content=None if both else _text(_first(payload, "content", "text")),
            digest=_text(payload.get("digest")),
            user_id=_uuid(payload.get("userId")),
        )
        return Reading(memory, tuple(wrong), wrong_unit, window, several)

    def _persona(self, payload: Mapping[str, object]) -> tuple[UUID | None, bool]:
        """The one persona that the payload names, and whether it names several."""
        keys = {self._spell["persona_id"], "persona_id", _CAMEL["persona_id"]}
        values = [payload[key] for key in keys if key in payload]
        named = {_uuid(each) for each in values} - {None}
        several = len(named) > 1 or any(isinstance(each, list) for each in values)
        return (None if several else _uuid(self._either(payload, "persona_id"))), several

    def _either(self, payload: Mapping[str, object], name: str) -> object:
        return _first(payload, self._spell[name], name, _CAMEL[name])


def _archived_digest(point_id: PointId, memory: StoredMemory) -> str | None:
    if not isinstance(point_id, UUID) or memory.persona_id is None:
        return None
    if memory.personality_id is None or memory.created_at_ms is None:
        return None
    place = (
        point_id,
        memory.persona_id,
        memory.personality_id,
        memory.channel_id or "",
        memory.created_at_ms,
    )
    if memory.user_text is not None and memory.assistant_text is not None:
        return memory_digest(*place, memory.user_text, memory.assistant_text)
    return content_digest(*place, memory.content or "")


def _first(payload: Mapping[str, object], *keys: str) -> object:
    return next((payload[key] for key in keys if key in payload), None)


def _uuid(value: object) -> UUID | None:
    try:
        return ids.persona_id(value)
    except InvalidInput:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _time_window(value: object) -> tuple[tuple[int, int] | None, bool]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, value is not None
    if not _MS_MIN <= value <= _MS_MAX:  # NaN too
        return None, True
    if abs(value) < _SECONDS_BELOW:
        start = round(value * 1000)
        return (start, start + (999 if value == int(value) else 0)), True
    return (int(value), int(value)), isinstance(value, float)
