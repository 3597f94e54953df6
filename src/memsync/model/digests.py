"""Computes the digests of memories, and of the JSON of payloads and plans.

A memory's point carries the memory's digest, so that the point can be compared with the exchange in
Postgres. The SQL function `memsync.memory_digest` computes the same, and a test compares the two.
Fields are length-prefixed, so no two different memories give the same input.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from uuid import UUID

from memsync.model.ids import PointId
from memsync.model.records import Exchange, Point

ALGORITHM = "memsync-2"
BUCKET_BITS = 12


def memory_digest(
    point_id: PointId,
    persona_id: UUID | str,
    personality_id: UUID | str,
    channel_id: str,
    created_at_ms: int,
    user_text: str,
    assistant_text: str,
) -> str:
    """The digest of a memory that has both texts. An id is taken as it is spelled."""
    place = (point_id, persona_id, personality_id, channel_id, created_at_ms)
    return _sha256(*place, user_text, assistant_text)


def content_digest(
    point_id: UUID,
    persona_id: UUID,
    personality_id: UUID,
    channel_id: str,
    created_at_ms: int,
    content: str,
) -> str:
    """The digest of an archived memory that has the app's one text.

    It has a field less than `memory_digest`, so the two never have the same input.
    """
    return _sha256(point_id, persona_id, personality_id, channel_id, created_at_ms, content)


def _sha256(*fields: UUID | str | int) -> str:
    """SHA-256, in hex, over the length-prefixed UTF-8 of the algorithm's tag and the fields."""
    data: list[bytes] = []
    for field in (ALGORITHM, *fields):
        encoded = _encoded(str(field))
        data += (len(encoded).to_bytes(4, "big"), encoded)
    return hashlib.sha256(b"".join(data)).hexdigest()


def exchange_digest(exchange: Exchange) -> str:
    """The digest that the memory of `exchange` must carry."""
    return memory_digest(
        exchange.anchor_id,
        exchange.persona_id,
        exchange.personality_id,
        exchange.channel_id,
        exchange.created_at_ms,
        exchange.user_text,
        exchange.assistant_text,
    )


def buckets(digest: str) -> tuple[int, int]:
    """The two 12-bit histogram buckets (`fp1`, `fp2`): the first 24 bits of a hex digest."""
    head = int(digest[:6], 16)
    return head >> BUCKET_BITS, head & ((1 << BUCKET_BITS) - 1)


def json_digest(value: object) -> str:
    """SHA-256, in hex, of `value` as JSON with sorted keys and no spaces."""
    return hashlib.sha256(_encoded(_canonical(value))).hexdigest()


def json_digest_with_list(value: Mapping[str, object], name: str, items: Iterable[object]) -> str:
    """`json_digest` of the object with a list of that name as well, whose items are read once.

    It is for lists that are too long for memory.
    """
    sha = hashlib.sha256(b"{")
    for number, key in enumerate(sorted({*value, name})):
        sha.update(_encoded(f"{',' if number else ''}{_canonical(key)}:"))
        if key != name:
            sha.update(_encoded(_canonical(value[key])))
            continue
        sha.update(b"[")
        for at, each in enumerate(items):
            sha.update(_encoded(f"{',' if at else ''}{_canonical(each)}"))
        sha.update(b"]")
    sha.update(b"}")
    return sha.hexdigest()


def _encoded(text: str) -> bytes:
    """UTF-8. Half a surrogate pair has bytes as well: the client's local mode can hold one."""
    return text.encode(errors="surrogatepass")


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def point_state(point: Point | None) -> str | None:
    """A digest of a point's payload, to tell later whether it changed; None for no point."""
    return None if point is None else json_digest(dict(point.payload))
