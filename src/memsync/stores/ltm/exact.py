"""Tells the payloads that are exactly what memsync writes, without decoding them.

Most memories of a shared collection are. So an audit of everything asks this first, and reads and
judges only the others.
"""

from collections.abc import Mapping
from operator import itemgetter
from typing import Any
from uuid import UUID

from memsync.model.digests import buckets, memory_digest
from memsync.model.ids import PointId
from memsync.model.records import Point
from memsync.stores.ltm.payload import KNOWN_KEYS, PayloadCodec

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


class Exact:
    """The payloads of one codec."""

    def __init__(self, codec: PayloadCodec) -> None:
        keys = [codec.key(name) for name in _FORM]
        self._values, self._types = itemgetter(*keys), tuple(_FORM.values())
        self._misfits = KNOWN_KEYS.difference(keys, map(codec.key, _BESIDE))

    def holds(self, point_id: PointId, payload: Mapping[str, object], digest: bytes) -> bool:
        """Whether the payload is what the codec makes of the exchange of this digest.

        The embedder may be any, and keys that memsync does not know may stand beside.
        """
        try:
            values = self._values(payload)
        except KeyError:
            return False
        if tuple(map(type, values)) != self._types or not self._misfits.isdisjoint(payload):
            return False
        *said, told, fp1, fp2 = values
        # The digest is of ids as they are spelled, so other spellings do not pass.
        return memory_digest(point_id, *said) == told == digest.hex() and (fp1, fp2) == buckets(
            told
        )


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
