"""Tells the payloads that are exactly what memsync writes, without decoding them.

Most memories of a shared collection are. So an audit of everything asks this first, and reads and
judges only the others.
"""

from collections.abc import Mapping
from typing import cast
from uuid import UUID

from memsync.model.digests import buckets, memory_digest
from memsync.model.ids import PointId
from memsync.model.records import Point
from memsync.stores.ltm.payload import KNOWN_KEYS, PayloadCodec

_TEXTS = ("persona_id", "personality_id", "channel_id", "user_text", "assistant_text")
_NUMBERS = ("created_at", "fp1", "fp2")
_BESIDE = ("embedder", "brought_from")


class Exact:
    """The payloads of one codec."""

    def __init__(self, codec: PayloadCodec) -> None:
        self._texts = [codec.key(name) for name in _TEXTS]
        self._numbers = [codec.key(name) for name in _NUMBERS]
        self._digest = codec.key("digest")
        self._beside = frozenset(map(codec.key, _BESIDE))
        self._whole = frozenset((*self._texts, *self._numbers, self._digest))

    def holds(self, point_id: PointId, payload: Mapping[str, object], digest: bytes) -> bool:
        """Whether the payload is what the codec makes of the exchange of this digest.

        The embedder may be any, and keys that memsync does not know may stand beside.
        """
        if (KNOWN_KEYS & payload.keys()) - self._beside != self._whole:
            return False
        texts = [payload[key] for key in self._texts]
        numbers = [payload[key] for key in self._numbers]
        if set(map(type, texts)) != {str} or set(map(type, numbers)) != {int}:
            return False
        persona, personality, channel, user, assistant = cast("list[str]", texts)
        at, *fps = cast("list[int]", numbers)
        # The digest is of ids as they are spelled, so other spellings do not pass.
        told = memory_digest(point_id, persona, personality, channel, at, user, assistant)
        same = told == digest.hex() and payload[self._digest] == told
        return same and (fps[0], fps[1]) == buckets(told)


def plain_digest(codec: PayloadCodec, point: Point) -> str | None:
    """The digest of what a payload says that is spelled as the codec writes it, without decoding.

    None where something is missing. What is spelled otherwise has another digest.
    """
    if not isinstance(point.id, UUID):
        return None
    try:
        at, *texts = [point.payload[codec.key(name)] for name in ("created_at", *_TEXTS)]
        persona, personality, channel, user, assistant = cast("list[str]", texts)
        return memory_digest(
            point.id, persona, personality, channel, cast("int", at), user, assistant
        )
    except (KeyError, ValueError):
        # A payload may hold half a surrogate pair, which has no UTF-8.
        return None
