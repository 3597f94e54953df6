"""Tells the payloads that are spelled exactly as they are written, without decoding them.

Most memories are: in a shared collection as memsync writes them, in the app's own collections as
the app does. So an audit of everything asks this first, and decodes and judges only the others.
"""

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from memsync.model.digests import buckets, memory_digest
from memsync.model.ids import PointId
from memsync.model.records import Point
from memsync.stores.ltm.payload import KNOWN_KEYS, PayloadCodec
from memsync.stores.ltm.values import time_window

_FORM: Mapping[str, type] = {
    "persona_id": str,
    "personality_id": str,
    "channel_id": str,
    "created_at": int,
    "user_text": str,
    "assistant_text": str,
    "digest": str,
    "fp1": int,
    "fp2": int,
}
_SAID = tuple(_FORM)[:6]
"""What the digest is of, in its order."""
_BESIDE = ("embedder", "brought_from")
_APPS: Mapping[str, type] = {
    "personaId": str,
    "personalityId": str,
    "createdAt": int,
    "content": str,
}


class _Form:
    """Payload keys, with the type of each. Those of `beside` may stand there, too."""

    def __init__(self, form: Mapping[str, type], beside: Iterable[str]) -> None:
        self._of, self._types = itemgetter(*form), tuple(form.values())
        self._misfits = KNOWN_KEYS.difference(form, beside)

    def values(self, payload: Mapping[str, object]) -> tuple[Any, ...] | None:
        """The values at the keys; None where one or its type is another, or a known key is there
        that does not belong. Keys that memsync does not know may stand beside.
        """
        try:
            values: tuple[Any, ...] = self._of(payload)
        except KeyError:
            return None
        fits = tuple(map(type, values)) == self._types and self._misfits.isdisjoint(payload)
        return values if fits else None


class Exact:
    """The payloads of one codec."""

    def __init__(self, codec: PayloadCodec) -> None:
        form = {codec.key(name): kind for name, kind in _FORM.items()}
        self._form = _Form(form, map(codec.key, _BESIDE))

    def holds(self, point_id: PointId, payload: Mapping[str, object], digest: bytes) -> bool:
        """Whether the payload is what the codec makes of the exchange of this digest.

        The embedder may be any, and keys that memsync does not know may stand beside.
        """
        values = self._form.values(payload)
        if values is None:
            return False
        *said, told, fp1, fp2 = values
        # The digest is of ids as they are spelled, so other spellings do not pass.
        return memory_digest(point_id, *said) == told == digest.hex() and (fp1, fp2) == buckets(
            told
        )


class Deployed(NamedTuple):
    """The contents of a payload whose keys and types are the app's.

    The ids are as they are spelled. `channel_id` is None where it has none. `message_ids` is what
    stands there, whatever it is.
    """

    persona_id: str
    personality_id: str
    created_at_ms: int
    content: str
    channel_id: str | None
    message_ids: object


_apps_form = _Form(_APPS, ["channelId"])


def deployed(payload: Mapping[str, object]) -> Deployed | None:
    """Read the payload; None where any key or type that memsync knows is not the app's."""
    values, channel = _apps_form.values(payload), payload.get("channelId")
    if values is None or not (channel is None or type(channel) is str):
        return None
    persona, personality, at_ms, content = values
    if time_window(at_ms) != ((at_ms, at_ms), False):
        return None
    return Deployed(persona, personality, at_ms, content, channel, payload.get("messageIds"))


def plain_digest(codec: PayloadCodec, point: Point) -> str | None:
    """The digest of what a payload says that is spelled as the codec writes it, without decoding.

    None where something is missing. What is spelled otherwise has another digest.
    """
    if not isinstance(point.id, UUID):
        return None
    try:
        said: list[Any] = [point.payload[codec.key(name)] for name in _SAID]
        return memory_digest(point.id, *said)
    except (KeyError, ValueError):
        # A payload may hold half a surrogate pair, which has no UTF-8.
        return None
