"""Tests the payload codec: it reads what it writes, and no payload makes it raise."""

import json
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memsync.model.digests import content_digest, exchange_digest
from memsync.model.ids import MessageId, PersonaId, PersonalityId
from memsync.model.records import Exchange, Point, StoredMemory
from memsync.stores.ltm.exact import plain_digest
from memsync.stores.ltm.payload import PayloadCodec, Reading, Style

STYLES: tuple[Style, ...] = ("snake", "camel")
PERSONA, PERSONALITY = (
    "7b1e4c1e-9f0a-4f5e-8a77-0c3f6d1b2a90",
    "7b1e4c1e-9f0a-4f5e-8a77-0c3f6d1b2a91",
)
AT = 1_750_000_000_123

KNOWN = frozenset(
    ("persona_id", "personality_id", "channel_id", "created_at", "user_text", "assistant_text",
     "content", "text_form", "digest", "fp1", "fp2", "embedder", "brought_from",
     "personaId", "personalityId", "channelId", "createdAt", "userText", "assistantText",
     "textForm", "broughtFrom", "text", "timestamp")
)  # fmt: skip

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
exchanges = st.builds(
    Exchange,
    anchor_id=st.uuids().map(MessageId),
    persona_id=st.uuids().map(PersonaId),
    personality_id=st.uuids().map(PersonalityId),
    channel_id=texts,
    created_at_ms=st.integers(100_000_000_000, 253_402_300_799_999),
    user_text=texts,
    assistant_text=texts,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["persona_id", "personaId", "personality_id", "personalityId", "channel_id", "channelId",
     "created_at", "createdAt", "timestamp", "content", "text", "digest", "userId",
     "user_text", "userText", "assistant_text", "textForm", "fp1", "x"]
)  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
@given(exchange=exchanges)
def test_what_is_written_is_read(style: Style, exchange: Exchange) -> None:
    """An encoded payload decodes to the exchange's memory, with nothing wrong in it."""
    codec = PayloadCodec(style)
    payload = codec.encode(exchange, "test/8")
    at = exchange.created_at_ms
    memory = StoredMemory(
        persona_id=exchange.persona_id,
        personality_id=exchange.personality_id,
        channel_id=exchange.channel_id,
        created_at_ms=at,
        user_text=exchange.user_text,
        assistant_text=exchange.assistant_text,
        digest=exchange_digest(exchange),
    )
    read = Reading(memory, (), wrong_unit=False, time_window_ms=(at, at), persona_given=True)
    assert read == codec.decode(payload)
    assert payload == json.loads(json.dumps(payload))


@given(exchange=exchanges, style=st.sampled_from(STYLES))
def test_the_plain_digest_is_the_exchange_s(exchange: Exchange, style: Style) -> None:
    """Without decoding, as far as nothing of it was changed."""
    codec = PayloadCodec(style)
    point = Point(exchange.anchor_id, codec.encode(exchange, "test/8"))
    assert exchange_digest(exchange) == plain_digest(codec, point)
    for key in map(codec.key, ("persona_id", "channel_id", "created_at", "assistant_text")):
        for other in ("other", 1.5, None, "\ud800"):
            changed = Point(point.id, {**point.payload, key: other})
            assert plain_digest(codec, point) != plain_digest(codec, changed)
        lacking = {name: value for name, value in point.payload.items() if name != key}
        assert plain_digest(codec, Point(point.id, lacking)) is None
    assert plain_digest(codec, Point(7, point.payload)) is None


@given(exchange=exchanges, other=exchanges, words=texts, style=st.sampled_from(STYLES))
def test_no_two_exchanges_are_one_memory(
    exchange: Exchange, other: Exchange, words: str, style: Style
) -> None:
    """Exchanges whose texts join to the same differ in payload and in digest."""
    place = replace(other, anchor_id=exchange.anchor_id)
    said = replace(place, user_text=f"{exchange.user_text}\nassistant: {words}")
    made_up = replace(
        place,
        user_text=exchange.user_text,
        assistant_text=f"{words}\nassistant: {place.assistant_text}",
    )
    assert said.text == made_up.text
    payloads = [PayloadCodec(style).encode(each, "test/8") for each in (said, made_up)]
    memories = [PayloadCodec(style).decode(each).memory for each in payloads]
    assert memories[0].user_text != memories[1].user_text
    assert memories[0].digest != memories[1].digest
    one_text = PayloadCodec(style).archived(
        Point(said.anchor_id, {"content": said.text, **_place(said)}),
        persona_id=said.persona_id,
        embedder="test/8",
    )
    assert one_text["digest"] not in {each.digest for each in memories}


def _place(exchange: Exchange) -> dict[str, object]:
    return {
        "personalityId": str(exchange.personality_id),
        "channelId": exchange.channel_id,
        "createdAt": exchange.created_at_ms,
    }


def test_both_texts_count_before_one() -> None:
    """Of a payload that has two texts and one, the two are read; of half of two, the one."""
    codec = PayloadCodec("snake")
    both = {"user_text": "u", "assistant_text": "a", "content": "c"}
    memory = codec.decode(both).memory
    assert ("u", "a", None) == (memory.user_text, memory.assistant_text, memory.content)
    assert "c" == codec.decode({"user_text": "u", "content": "c"}).memory.text


@pytest.mark.parametrize("style", STYLES)
@given(payload=st.dictionaries(keys | st.text(), json_values, max_size=8))
def test_nothing_makes_it_raise(style: Style, payload: dict[str, Any]) -> None:
    """Any JSON object can be read, and each field that is understood has the right type."""
    codec = PayloadCodec(style)
    reading = codec.decode(payload)
    assert isinstance(reading.memory.persona_id, UUID | None)
    for text in (reading.memory.content, reading.memory.user_text, reading.memory.text):
        assert isinstance(text, str | None)
    assert isinstance(reading.memory.created_at_ms, int | None)
    for as_deployed in (True, False):
        mended = codec.patched(Point(7, payload), None, as_deployed=as_deployed)
        again = codec.decode(mended)
        assert () == again.wrong_keys
        assert mended == codec.patched(Point(7, mended), None, as_deployed=as_deployed)
        at = again.memory.created_at_ms
        assert not again.wrong_unit or at is None or abs(at) < 100_000_000_000


@pytest.mark.parametrize("at", [10**400, -(10**400)])
def test_an_integer_larger_than_any_float(at: int) -> None:
    """A time beyond every float is a wrong unit, not an error; JSON does not limit integers."""
    try:
        reading = PayloadCodec("snake").decode({"created_at": at})
    except OverflowError as error:
        pytest.fail(str(error))
    assert reading.wrong_unit


TIMES: list[tuple[Any, tuple[int, int] | None, bool]] = [
    (AT, (AT, AT), False),
    (AT + 0.75, (AT, AT), True),
    (float(AT), (AT, AT), True),
    (AT // 1000, (AT // 1000 * 1000, AT // 1000 * 1000 + 999), True),
    (AT / 1000, (AT, AT), True),
    (float(AT // 1000), (AT // 1000 * 1000, AT // 1000 * 1000 + 999), True),
    (0, (0, 999), True),
    (-1, (-1000, -1), True),
    (-AT, (-AT, -AT), False),
    (str(AT), None, True),
    ("2025-05-01", None, True),
    (True, None, True),
    ([AT], None, True),
    (float("nan"), None, True),
    (float("inf"), None, True),
    (None, None, False),
]


@pytest.mark.parametrize(("value", "window", "wrong"), TIMES)
@pytest.mark.parametrize("key", ["created_at", "createdAt", "timestamp"])
def test_times(key: str, value: Any, window: tuple[int, int] | None, *, wrong: bool) -> None:
    """Seconds, fractions, text and nonsense are told from whole milliseconds."""
    reading = PayloadCodec("snake").decode({key: value})
    assert (window, wrong) == (reading.time_window_ms, reading.wrong_unit)
    assert (window and window[0]) == reading.memory.created_at_ms


def test_no_time_at_all() -> None:
    """A missing time is no wrong unit."""
    assert Reading(StoredMemory(None, None, None, None)) == PayloadCodec("snake").decode({})


@pytest.mark.parametrize(
    ("style", "key"),
    [
        ("camel", "persona_id"),
        ("camel", "created_at"),
        ("camel", "user_text"),
        ("snake", "assistantText"),
        *(
            pytest.param("snake", key)
            for key in ("personaId", "personalityId", "channelId", "createdAt")
        ),
        ("snake", "text"),
        ("camel", "timestamp"),
    ],
)
def test_keys_of_the_other_style_are_wrong(style: Style, key: str) -> None:
    """A key that this style spells in another way is reported."""
    assert (key,) == PayloadCodec(style).decode({key: PERSONA}).wrong_keys


@pytest.mark.parametrize("persona", [PERSONA.replace("-", ""), f"{{{PERSONA}}}", 7, [PERSONA], ""])
def test_what_is_no_persona(persona: object) -> None:
    """A persona id of another spelling or type is read as None."""
    assert PayloadCodec("snake").decode({"persona_id": persona}).memory.persona_id is None


DIRT = {
    "personaId": PERSONA, "personality_id": PERSONALITY, "text": "x", "timestamp": AT / 1000,
    "channelId": None, "senders": ["1"], "digest": "old", "embedder": "old",
}  # fmt: skip


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (
            "snake",
            {"persona_id": PERSONA, "personality_id": PERSONALITY, "channel_id": None,
             "created_at": AT, "content": "x"},
        ),
        (
            "camel",
            {"personaId": PERSONA, "personalityId": PERSONALITY, "channelId": None,
             "createdAt": AT, "content": "x"},
        ),
    ],
)  # fmt: skip
def test_a_mended_payload_is_clean(style: Style, expected: dict[str, object]) -> None:
    """Known keys are respelled, the time is whole, and every other key stays as it is."""
    codec = PayloadCodec(style)
    mended = codec.patched(Point(7, DIRT), None, as_deployed=True)
    assert expected | {"senders": ["1"], "digest": "old", "embedder": "old"} == mended
    assert ((), False) == (codec.decode(mended).wrong_keys, codec.decode(mended).wrong_unit)


@given(exchange=exchanges, payload=st.dictionaries(keys | st.text(), json_values, max_size=8))
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("as_deployed", [True, False])
def test_a_payload_is_mended_from_its_row(
    style: Style, exchange: Exchange, payload: dict[str, Any], *, as_deployed: bool
) -> None:
    """Persona, personality, channel and time are the row's; text and unknown keys stay."""
    codec = PayloadCodec(style)
    before = codec.decode(payload).memory
    mended = codec.patched(Point(7, payload), exchange, as_deployed=as_deployed)
    memory = codec.decode(mended).memory
    whose = (exchange.persona_id, exchange.personality_id, exchange.created_at_ms)
    assert whose == (memory.persona_id, memory.personality_id, memory.created_at_ms)
    had_channel = bool({"channel_id", "channelId"} & payload.keys())
    assert (as_deployed and not had_channel) is (codec.key("channel_id") not in mended)
    assert memory.channel_id in {exchange.channel_id, None}
    if before.text is not None:
        assert before.text == memory.text
    unknown = {each: value for each, value in payload.items() if each not in KNOWN}
    assert unknown.items() <= mended.items()


def test_a_mended_memory_of_the_shared_collection_has_its_digest() -> None:
    """It is the exchange's where the texts are, and otherwise that of what stands there."""
    codec = PayloadCodec("snake")
    row = Exchange(
        MessageId(uuid4()), PersonaId(uuid4()), PersonalityId(uuid4()), "1", AT, "u", "a",
        MessageId(uuid4()),
    )  # fmt: skip
    whole = codec.encode(row, "test/8")
    dirty = {**whole, "persona_id": PERSONA, "digest": "old", "fp1": 0, "fp2": 0}
    point = Point(row.anchor_id, dirty)
    assert whole == codec.patched(point, row, as_deployed=False)
    one_text = {key: each for key, each in dirty.items() if not key.endswith("_text")}
    mended = codec.patched(
        Point(row.anchor_id, one_text | {"content": "x"}), row, as_deployed=False
    )
    place = (row.anchor_id, row.persona_id, row.personality_id, "1", AT)
    assert content_digest(*place, "x") == mended["digest"]
