"""Tests LongTermMemory on a store of its own: its writes, its reads, when it loads an embedder."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast
from uuid import UUID, uuid4

import pytest

from memsync.errors import SchemaMismatch
from memsync.model.digests import content_digest, exchange_digest
from memsync.model.ids import MessageId, PersonaId, PersonalityId
from memsync.model.records import Exchange, Place, Point
from memsync.settings import Settings
from memsync.stores.ltm import Embedder, LongTermMemory
from memsync.stores.postgres import Session
from memsync.stores.vectors import VectorStore, open_vectors
from support.counting import Counting

PERSONA, PERSONALITY = PersonaId(uuid4()), PersonalityId(uuid4())
SAID = MessageId(uuid4())
SETTINGS = Settings(qdrant_url=":memory:")


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Vectors that depend on the length alone."""
    return [[1.0, float(len(text))] for text in texts]


def exchange(text: str = "hi") -> Exchange:
    """An exchange of the persona."""
    anchor = MessageId(uuid4())
    return Exchange(anchor, PERSONA, PERSONALITY, "1", 1_750_000_000_000, text, f"re {text}", SAID)


def put(ltm: LongTermMemory, said: Exchange, *, replacing: bool = False) -> None:
    """Write the memory of an exchange. The shared layout asks Postgres for nothing."""
    made = ltm.make(cast("Session", None), [said])
    points = ltm.points(ltm.collection, [said.anchor_id]) if replacing else {}
    ltm.write(made, seen={each.place: points[said.anchor_id] for each in made if points})


@pytest.fixture
def vectors() -> Iterator[VectorStore]:
    """An empty store."""
    with contextlib.closing(open_vectors(SETTINGS)) as opened:
        yield opened


@pytest.fixture
def ltm(vectors: VectorStore) -> LongTermMemory:
    """Long-term memory on it, prepared."""
    made = LongTermMemory(vectors, SETTINGS, Embedder("test", embed))
    made.prepare()
    return made


def test_reading_loads_no_embedder(vectors: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads other than a recall load no embedder; recalls from many threads load it once."""
    loaded: list[str] = []

    def load(name: str) -> Embedder:
        loaded.append(name)
        return Embedder(name, embed)

    monkeypatch.setattr("memsync.stores.ltm.store.load_embedder", load)
    ltm = LongTermMemory(vectors, SETTINGS)
    home = ltm.collection
    assert ([], None, False) == (ltm.collections(), ltm.describe(home), ltm.stands(home))
    assert {} == ltm.points(home, [1])
    for read in (lambda: list(ltm.scan(home)), lambda: ltm.count(home)):
        with pytest.raises(SchemaMismatch):
            read()
    assert ([], []) == (loaded, vectors.collections())
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ltm.recall("x", persona_id=PERSONA, limit=1), range(8)))
    assert [[]] * 8 == found
    assert [SETTINGS.embedder] == loaded


def test_what_is_put_is_recalled(ltm: LongTermMemory) -> None:
    """A memory is recalled for its own persona and personality only."""
    said = exchange()
    put(ltm, said)
    [found] = ltm.recall("hi", persona_id=PERSONA, personality_id=PERSONALITY, limit=9)
    assert (said.anchor_id, said.user_text, said.assistant_text) == (
        found.id,
        found.user_text,
        found.assistant_text,
    )
    assert [] == ltm.recall("hi", persona_id=PersonaId(uuid4()), limit=9)
    other = PersonalityId(uuid4())
    assert [] == ltm.recall("hi", persona_id=PERSONA, personality_id=other, limit=9)


def text_of(ltm: LongTermMemory, said: Exchange) -> object:
    """The user's text of the exchange's memory."""
    return ltm.points(ltm.collection, [said.anchor_id])[said.anchor_id].payload["user_text"]


def test_a_put_replaces_only_what_was_seen(ltm: LongTermMemory) -> None:
    """A put replaces a point that the caller saw, and leaves one that was written meanwhile."""
    said = exchange("old")
    put(ltm, said)
    edited = replace(said, user_text="new")
    put(ltm, edited)
    assert said.user_text == text_of(ltm, said)
    put(ltm, edited, replacing=True)
    assert edited.user_text == text_of(ltm, said)


def test_an_archived_memory_comes_home_with_a_digest(
    ltm: LongTermMemory, vectors: VectorStore
) -> None:
    """A memory brought home keeps id and text, and gets its collection's persona and a digest."""
    said, collection = exchange(), f"persona-{PERSONA}"
    payload = {
        "personaId": str(uuid4()),
        "personalityId": str(PERSONALITY),
        "channelId": "1",
        "createdAt": said.created_at_ms,
        "content": said.text,
        "senders": ["1"],
    }
    vectors.create(collection, 2, {})
    vectors.upsert(collection, [Point(said.anchor_id, payload, (1.0, 0.0))])
    old = list(ltm.scan(collection))
    target = Place(ltm.collection, said.anchor_id)
    moved = Point(said.anchor_id, ltm.repairs.copied(old[0], collection, target, PERSONA))
    expected = {**ltm.codec.encode(said, "test/2"), "senders": ["1"]}
    # Nobody knows which embedder made its vector.
    for key in ("user_text", "assistant_text", "digest", "fp1", "fp2", "embedder"):
        del expected[key]
    kept = {key: moved.payload[key] for key in moved.payload.keys() - {"digest", "fp1", "fp2"}}
    assert expected | {"content": said.text, "text_form": "deployed"} == kept
    place = (said.anchor_id, PERSONA, PERSONALITY, "1", said.created_at_ms)
    assert content_digest(*place, said.text) == moved.payload["digest"]
    assert exchange_digest(said) != moved.payload["digest"]
    assert old == list(ltm.scan(collection))


@pytest.mark.parametrize("point_id", [7, UUID(int=7)], ids=["number", "uuid"])
def test_an_archived_memory_that_says_too_little_has_no_digest(
    ltm: LongTermMemory, point_id: int | UUID
) -> None:
    """An archived memory whose id is no uuid, or that has no time, gets no digest."""
    payload = {"personalityId": str(PERSONALITY), "content": "x"}
    if isinstance(point_id, int):
        payload["createdAt"] = str(1)
    made = ltm.codec.archived(Point(point_id, payload), persona_id=PERSONA, embedder="test/2")
    assert not {"digest", "fp1", "fp2"} & made.keys()


def test_each_collection_has_its_codec(ltm: LongTermMemory) -> None:
    """The home collection is spelled as the settings say, every other one as the app does."""
    assert ("persona_id", "personaId") == tuple(
        ltm.codec_of(name).key("persona_id") for name in (ltm.collection, f"persona-{PERSONA}")
    )


@pytest.mark.parametrize(
    ("collection", "payload", "remembers"),
    [
        (f"persona-{PERSONA}", {}, True),
        (f"persona-{PERSONA}".upper().replace("PERSONA-", "persona-"), {}, True),
        (f"persona-{PERSONA.hex}", {}, True),
        (f"persona-{uuid4()}", {"personaId": str(PERSONA)}, True),
        (f"personality-{PERSONALITY}", {"personaId": str(PERSONA)}, True),
        (SETTINGS.collection, {"persona_id": str(PERSONA)}, True),
        ("of_another_program", {"personaId": str(PERSONA), "persona_id": str(PERSONA)}, False),
        (f"persona-{uuid4()}", {"personaId": str(uuid4())}, False),
    ],
    # The ids are random, and a test's name must be the same in every process.
    ids=("own", "own in capitals", "own in hex", "another's", "older", "home", "stranger", "no"),
)
def test_a_persona_is_remembered_wherever_the_app_keeps_memories(
    vectors: VectorStore, collection: str, payload: dict[str, str], remembers: bool
) -> None:
    """By the id in a collection's name, however it is written, or by the payload's persona."""
    vectors.create(collection, 2, {})
    vectors.upsert(collection, [Point(uuid4(), payload, (1.0, 0.0))])
    found = LongTermMemory(vectors, SETTINGS).remembered([uuid4(), PERSONA, uuid4()])
    assert ({PERSONA} if remembers else set()) == found


def test_each_collection_is_asked_about_all_personas_at_once(vectors: VectorStore) -> None:
    """Of which few are remembered."""
    counting, personas = Counting(vectors), [PERSONA, *(uuid4() for _ in range(100))]
    for name in (*(f"persona-{uuid4()}" for _ in range(5)), SETTINGS.collection):
        vectors.create(name, 2, {})
    vectors.upsert(name, [Point(uuid4(), {"persona_id": str(PERSONA)}, (1.0, 0.0))])
    assert {PERSONA} == LongTermMemory(counting, SETTINGS).remembered(personas)
    assert counting.calls.count("count") <= 5 + 2 * 7
