"""The payload codec: turns an exchange into a point's payload, and any payload into a memory.

Decides the spelling of every payload key in both styles. A payload that the app wrote (with `text`,
`timestamp`, seconds or floats) becomes a memory and a list of what was wrong; callers judge that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from memsync.model.digests import buckets, content_digest, exchange_digest, memory_digest
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Point, StoredMemory, joined
from memsync.stores.ltm.texts import says
from memsync.stores.ltm.values import SECONDS_BELOW, text_of, time_window, uuid_of, uuids_of
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
    "brought_from": "broughtFrom",
}
KNOWN_KEYS = frozenset(("text", "timestamp", *_CAMEL, *_CAMEL.values()))
"""Every key that memsync knows, in any spelling."""
_INDEXED = {
    "persona_id": IndexKind.TENANT,
    "personality_id": IndexKind.UUID,
    "channel_id": IndexKind.KEYWORD,
    "fp1": IndexKind.INTEGER,
    "fp2": IndexKind.INTEGER,
}
_IDS = ("persona_id", "personality_id")
_TEXTS, _ONE_TEXT = ("user_text", "assistant_text"), ("content", "text")


@dataclass(frozen=True, slots=True)
class Reading:
    """The memory in a payload, and what was wrong with the payload.

    `wrong_keys` are keys that this style does not use. `two_texts` are those of an app's payload
    without the one that the app reads; the memory has that one, and their keys are wrong.
    `wrong_unit` is true for a time that is not an integer of milliseconds. `time_window_ms` is the
    first and last millisecond it may mean.
    `persona_given`: something stands where the persona is named. `names_several_personas`: a list
    of them stands there, or two spellings of the key differ; the memory has no persona then,
    because Qdrant gives it to the filter of each. `misspelled` are keys whose id a filter
    of the app's does not find, because it is not spelled as Postgres spells it.
    `names_several_times`: two spellings of the key give times that differ. `message_ids` are the
    ids of rows that it names. `brought_from` is the place of the app's point of which it is a copy.
    `texts_disagree`: it has the app's one text, and both texts besides, that say something else.
    `perhaps_ms` is a time that was taken for seconds, and that may be milliseconds around 1970 all
    the same; only the row can tell.
    """

    memory: StoredMemory
    wrong_keys: tuple[str, ...] = ()
    wrong_unit: bool = False
    time_window_ms: tuple[int, int] | None = None
    persona_given: bool = False
    names_several_personas: bool = False
    misspelled: tuple[str, ...] = ()
    names_several_times: bool = False
    message_ids: tuple[UUID, ...] = ()
    brought_from: str | None = None
    perhaps_ms: int | None = None
    texts_disagree: bool = False
    two_texts: tuple[str, str] | None = None

    def in_milliseconds(self) -> "Reading":
        """The same, where the time that was taken for seconds is in milliseconds."""
        if self.perhaps_ms is None:
            return self
        at = self.perhaps_ms
        memory = replace(self.memory, created_at_ms=at)
        return replace(self, memory=memory, wrong_unit=False, time_window_ms=(at, at))


class PayloadCodec:
    """Writes payloads in one style; reads both."""

    def __init__(self, style: Style, *, of_app: bool = False) -> None:
        """`of_app`: the payloads are the app's, which reads `content`, whatever else is there."""
        self.style = style
        self.of_app = of_app
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

    def encode_deployed(self, exchange: Exchange, content: str) -> dict[str, object]:
        """The payload of the exchange's memory that was brought here with the app's text and its
        vector: what it shares with `encode`, the text, and the digest of that text.
        """
        payload = self.encode(exchange, embedder="")
        for name in ("embedder", "user_text", "assistant_text"):
            payload.pop(self._spell[name])
        digest = content_digest(
            exchange.anchor_id,
            exchange.persona_id,
            exchange.personality_id,
            exchange.channel_id,
            exchange.created_at_ms,
            content,
        )
        fp1, fp2 = buckets(digest)
        values = {
            "content": content,
            "text_form": "deployed",
            "digest": digest,
            "fp1": fp1,
            "fp2": fp2,
        }
        return payload | {self._spell[name]: value for name, value in values.items()}

    def brought(
        self, payload: Mapping[str, object], exchange: Exchange, embedder: str
    ) -> dict[str, object]:
        """The payload, in this style, of an app's memory of this exchange, whose vector is kept.

        The app's text stays, because the vector was made from it. Keys that memsync does not know
        are kept.
        """
        content = text_of(_first(payload, *_ONE_TEXT))
        if content is None:
            return _unknown(payload) | self.encode(exchange, embedder)
        brought = self.encode_deployed(exchange, content)
        return _unknown(payload) | brought | {self._spell["embedder"]: embedder}

    def returned(self, payload: Mapping[str, object], persona_id: UUID) -> dict[str, object]:
        """The payload, in this style, of a memory with the app's text that goes back to the app.

        It has no keys that only memsync reads. Keys that memsync does not know are kept.
        """
        memory = self.decode(payload).memory
        values = {
            "persona_id": str(persona_id),
            "personality_id": memory.personality_id and str(memory.personality_id),
            "channel_id": memory.channel_id,
            "created_at": memory.created_at_ms,
            "content": memory.content,
        }
        return _unknown(payload) | {self._spell[k]: v for k, v in values.items() if v is not None}

    def origin(self, payload: Mapping[str, object]) -> dict[str, object]:
        """The note of the app's point of which this is a copy, in this style; empty without one."""
        noted = text_of(self._either(payload, "brought_from"))
        return {} if noted is None else {self._spell["brought_from"]: noted}

    def archived(
        self, point: Point, *, persona_id: UUID | None, embedder: str | None = None
    ) -> dict[str, object]:
        """The payload, in this style, of an app's memory whose exchange is no longer kept.

        Its text stays as it is; `text_form` says that it is the app's. `persona_id` replaces the
        payload's. `embedder` made the vector; None where that is not known. A digest is added if id
        and payload have all that it is computed from.
        """
        payload = self._respelled(point.payload)
        if persona_id is not None:
            payload[self.key("persona_id")] = str(persona_id)
        if self.key("content") in payload:
            payload[self.key("text_form")] = "deployed"
        if text_of(_first(point.payload, *_ONE_TEXT)) is not None:
            for name in _TEXTS:
                payload.pop(self.key(name), None)
        if embedder is not None:
            payload[self.key("embedder")] = embedder
        for name in ("digest", "fp1", "fp2"):
            payload.pop(self.key(name), None)
        return payload | self._digested(point.id, payload, None)

    def patched(
        self, point: Point, exchange: Exchange | None, *, as_deployed: bool
    ) -> dict[str, object]:
        """The point's payload as this style wants it; its text, and keys of others, stay.

        Known keys are respelled, and a time that can be read becomes whole milliseconds. With its
        exchange, persona, personality, channel and time are the row's; without, its digest stays.
        `as_deployed`: in a collection of the app's there is no digest, and a channel
        that is absent stays absent.
        """
        payload = self._respelled(point.payload)
        if exchange is not None:
            payload[self.key("persona_id")] = str(exchange.persona_id)
            payload[self.key("personality_id")] = str(exchange.personality_id)
            payload[self.key("created_at")] = exchange.created_at_ms
            if not as_deployed or self.key("channel_id") in payload:
                payload[self.key("channel_id")] = exchange.channel_id
        # Without a row, the digest that it carries may be the only proof that it was changed.
        if as_deployed or (exchange is None and text_of(payload.get("digest"))):
            return payload
        return payload | self._digested(point.id, payload, exchange)

    def _respelled(self, payload: Mapping[str, object]) -> dict[str, object]:
        """Known keys in this style, ids as Postgres spells them, a time in whole milliseconds, and
        one text in the app's.

        What cannot be read stays.
        """
        changed = _unknown(payload)
        for name, camel in _CAMEL.items():
            older = {"content": ("text",), "created_at": ("timestamp",)}.get(name, ())
            spellings = (self._spell[name], name, camel, *older)
            if found := [payload[key] for key in spellings if payload.get(key) is not None]:
                changed[self._spell[name]] = found[0]
            elif any(key in payload for key in spellings):
                changed[self._spell[name]] = None
        for key in map(self.key, _IDS):
            if id_ := uuid_of(changed.get(key)):
                changed[key] = str(id_)
        if two_texts := self._unread(changed):
            # The vector was made from both, joined like this.
            changed[self.key("content")] = joined(*two_texts)
            for name in _TEXTS:
                del changed[self.key(name)]
        window, _ = time_window(changed.get(self.key("created_at")))
        if window is None or abs(window[0]) < SECONDS_BELOW:
            # As milliseconds it would be taken for seconds again.
            return changed
        return changed | {self.key("created_at"): window[0]}

    def _digested(
        self, point_id: PointId, payload: Mapping[str, object], exchange: Exchange | None
    ) -> dict[str, object]:
        """The keys of the digest, where there is all that it is computed from."""
        memory = self.decode(payload).memory
        digest = memory_digest_of(point_id, memory)
        if exchange and (memory.user_text, memory.assistant_text) == (
            exchange.user_text,
            exchange.assistant_text,
        ):
            digest = exchange_digest(exchange)
        if digest is None:
            return {}
        fp1, fp2 = buckets(digest)
        return {self.key("digest"): digest, self.key("fp1"): fp1, self.key("fp2"): fp2}

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
        window, wrong_unit = time_window(at)
        personas = self._personas(payload)
        named = {uuid_of(each) for each in personas} - {None}
        first = uuid_of(self._either(payload, "persona_id"))
        several = bool(named - {first}) or any(isinstance(each, list) for each in personas)
        user_text, assistant_text = self._both(payload)
        content = text_of(_first(payload, *_ONE_TEXT))
        texts_disagree = False
        if two_texts := self._unread(payload):
            spellings = dict.fromkeys(each for name in _TEXTS for each in (name, _CAMEL[name]))
            wrong += [each for each in spellings if each in payload and each not in wrong]
            content, user_text, assistant_text = joined(*two_texts), None, None
        elif user_text is not None and assistant_text is not None:
            if self.of_app:
                alone = StoredMemory(None, None, None, None, content=content)
                texts_disagree = not says(alone, user_text, assistant_text)
                user_text = assistant_text = None
            else:
                content = None
        memory = StoredMemory(
            persona_id=None if several else first,
            personality_id=uuid_of(self._either(payload, "personality_id")),
            channel_id=text_of(self._either(payload, "channel_id")),
            created_at_ms=None if window is None else window[0],
            user_text=user_text,
            assistant_text=assistant_text,
            content=content,
            digest=text_of(payload.get("digest")),
            user_id=uuid_of(payload.get("userId")),
        )
        return Reading(
            memory,
            tuple(wrong),
            wrong_unit,
            window,
            persona_given=any(each is not None for each in personas),
            names_several_personas=several,
            misspelled=self._misspelled(payload),
            names_several_times=_differ(payload),
            message_ids=uuids_of(payload.get("messageIds")),
            brought_from=text_of(self._either(payload, "brought_from")),
            perhaps_ms=at if wrong_unit and window and type(at) is int else None,
            texts_disagree=texts_disagree,
            two_texts=two_texts,
        )

    def _personas(self, payload: Mapping[str, object]) -> list[object]:
        """What stands where the persona is named, in each spelling of the key."""
        return [payload[key] for key in ("persona_id", _CAMEL["persona_id"]) if key in payload]

    def _misspelled(self, payload: Mapping[str, object]) -> tuple[str, ...]:
        """The personality's key, where the app's filter misses its id; ours find any spelling."""
        key = self._spell["personality_id"]
        id_ = uuid_of(payload.get(key))
        return (key,) if self.of_app and id_ and payload[key] != str(id_) else ()

    def _both(self, payload: Mapping[str, object]) -> tuple[str | None, str | None]:
        """The user's text and the assistant's."""
        user_text, assistant_text = (text_of(self._either(payload, name)) for name in _TEXTS)
        return user_text, assistant_text

    def _unread(self, payload: Mapping[str, object]) -> tuple[str, str] | None:
        """Both texts of an app's payload that lacks the one which the app reads."""
        if not self.of_app or text_of(_first(payload, *_ONE_TEXT)) is not None:
            return None
        user_text, assistant_text = self._both(payload)
        if user_text is None or assistant_text is None:
            return None
        return user_text, assistant_text

    def _either(self, payload: Mapping[str, object], name: str) -> object:
        return _first(payload, self._spell[name], name, _CAMEL[name])


def memory_digest_of(point_id: PointId, memory: StoredMemory) -> str | None:
    """The digest that a memory of this id must carry; None where it lacks what that is of."""
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


def _unknown(payload: Mapping[str, object]) -> dict[str, object]:
    """What stands under keys that memsync does not know."""
    return {key: value for key, value in payload.items() if key not in KNOWN_KEYS}


def _first(payload: Mapping[str, object], *keys: str) -> object:
    """The value of the first of these keys that is there."""
    return next((payload[key] for key in keys if key in payload), None)


def _differ(payload: Mapping[str, object]) -> bool:
    """Whether two spellings of the time give different ones, each as a time may be written."""
    keys = ("created_at", "createdAt", "timestamp")
    windows = [time_window(payload[key])[0] for key in keys if payload.get(key) is not None]
    known = [each for each in windows if each]
    return any(a[0] > b[1] or b[0] > a[1] for a in known for b in known)


DEPLOYED = PayloadCodec("camel", of_app=True)
"""Reads and writes the payloads of the app's own collections."""
