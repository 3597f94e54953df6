"""A payload is exactly what memsync writes, or it is read and judged."""

from __future__ import annotations

from uuid import UUID

import pytest

from memsync.model.digests import exchange_digest
from memsync.model.ids import MessageId, PersonaId, PersonalityId
from memsync.model.records import Exchange
from memsync.stores.ltm.exact import Exact
from memsync.stores.ltm.payload import PayloadCodec, Style

EXCHANGE = Exchange(
    anchor_id=MessageId(UUID(int=1)),
    persona_id=PersonaId(UUID("aaaaaaaa-0000-4000-8000-00000000000a")),
    personality_id=PersonalityId(UUID(int=3)),
    channel_id="c",
    created_at_ms=1_750_000_000_000,
    user_text="hé",
    assistant_text="",
    said_id=MessageId(UUID(int=2)),
)
DIGEST = bytes.fromhex(exchange_digest(EXCHANGE))


@pytest.mark.parametrize("style", ["snake", "camel"])
def test_what_the_codec_writes_is_exact(style: Style) -> None:
    """With any embedder and any keys of others; under its id and for its exchange only."""
    codec = PayloadCodec(style)
    exact, payload = Exact(codec), codec.encode(EXCHANGE, "any/8")
    beside = {"senders": [1], codec.key("brought_from"): "persona-x/1"}
    assert exact.holds(EXCHANGE.anchor_id, payload, DIGEST)
    assert exact.holds(EXCHANGE.anchor_id, payload | beside, DIGEST)
    assert not exact.holds(UUID(int=9), payload, DIGEST)
    assert not exact.holds(1, payload, DIGEST)
    assert not exact.holds(EXCHANGE.anchor_id, payload, bytes(32))


@pytest.mark.parametrize(
    "changes",
    [
        {"persona_id": str(EXCHANGE.persona_id).upper()},
        {"persona_id": [str(EXCHANGE.persona_id)]},
        {"channel_id": None},
        {"created_at": float(EXCHANGE.created_at_ms)},
        {"created_at": str(EXCHANGE.created_at_ms)},
        {"user_text": "x"},
        {"assistant_text": None},
        {"digest": "0" * 64},
        {"fp1": -1},
        {"fp1": True},
        {"fp2": "1"},
        {"content": "x"},
        {"text_form": "deployed"},
        {"personaId": "x"},
        {"timestamp": 1},
    ],
    ids=str,
)
def test_anything_else_is_not(changes: dict[str, object]) -> None:
    """Another value, type or spelling, a key too much or too few: it is judged by the rules."""
    codec = PayloadCodec("snake")
    payload = codec.encode(EXCHANGE, "any/8")
    assert not Exact(codec).holds(EXCHANGE.anchor_id, payload | changes, DIGEST)
    without = {key: value for key, value in payload.items() if key not in changes}
    if len(without) < len(payload):
        assert not Exact(codec).holds(EXCHANGE.anchor_id, without, DIGEST)
