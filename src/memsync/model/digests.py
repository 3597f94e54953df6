"""Computes the digests of memories, and of the JSON of payloads and plans.

A memory's point carries the memory's digest, so that the point can be compared with the exchange in
Postgres. The SQL function `memsync.memory_digest` computes the same, and a test compares the two.
Fields are length-prefixed, so no two different memories give the same input.
"""

import hashlib
import json
import struct
from uuid import UUID

from memsync.model.records import Exchange, Point

ALGORITHM = "memsync-1"
BUCKET_BITS = 12


def memory_digest(
    point_id: UUID,
    persona_id: UUID,
    personality_id: UUID,
    channel_id: str,
    created_at_ms: int,
    content: str,
) -> str:
    """SHA-256, in hex, over the length-prefixed UTF-8 of the algorithm's tag and the fields."""
    fields = (
        ALGORITHM,
        str(point_id),
        str(persona_id),
        str(personality_id),
        channel_id,
        str(created_at_ms),
        content,
    )
    sha = hashlib.sha256()
    for field in fields:
        encoded = field.encode()
        sha.update(struct.pack(">I", len(encoded)))
        sha.update(encoded)
    return sha.hexdigest()


def exchange_digest(exchange: Exchange) -> str:
    """The digest that the memory of `exchange` must carry."""
    return memory_digest(
        exchange.anchor_id,
        exchange.persona_id,
        exchange.personality_id,
        exchange.channel_id,
        exchange.created_at_ms,
        exchange.content,
    )


def buckets(digest: str) -> tuple[int, int]:
    """The two 12-bit histogram buckets (`fp1`, `fp2`): the first 24 bits of a hex digest."""
    head = int(digest[:6], 16)
    return head >> BUCKET_BITS, head & ((1 << BUCKET_BITS) - 1)


def json_digest(value: object) -> str:
    """SHA-256, in hex, of `value` as JSON with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def point_state(point: Point | None) -> str | None:
    """A digest of a point's payload, to tell later whether it changed; None for no point."""
    return None if point is None else json_digest(dict(point.payload))
