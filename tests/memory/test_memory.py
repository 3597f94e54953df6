"""Tests `Memory`: reads give their own persona's data only, and a write is all or nothing."""

import random
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from memsync.errors import DimensionMismatch, InvalidInput, MemsyncError, StoreUnreachable
from memsync.memory import Memory, NewExchange
from memsync.model.records import Message, Recollection
from memsync.stores.vectors import CollectionInfo, open_vectors
from support.lab import ADA, BASIL, CHANNEL, DIMS, LONG_AGO, NOBODY, A, B, C, Lab
from support.stopping import Stop, Stopping

PERSONAS = (A, B, C)


def said(text: str, persona: UUID = A, **others: Any) -> NewExchange:
    """A new exchange of one persona."""
    return replace(NewExchange(CHANNEL, ADA, persona, text, f"reply to {text}"), **others)


def said_in(recalled: Recollection) -> tuple[str, str]:
    """Both texts of a memory."""
    return recalled.user_text, recalled.assistant_text


def texts(messages: list[Message]) -> list[str]:
    """The texts of the messages."""
    return [each.content for each in messages]


# ---------------------------------------------------------------------- isolation


def test_two_users_in_one_channel_see_only_their_own_thread(lab: Lab) -> None:
    """Two users of one channel and one personality each read only their own messages."""
    for text, persona in (("mine", A), ("yours", C), ("mine again", A)):
        lab.memory.remember(said(text, persona))
    history = lab.memory.get_recent_history(CHANNEL, ADA, persona_id=A)
    assert ["mine", "reply to mine", "mine again", "reply to mine again"] == texts(history)
    assert {A} == {each.persona_id for each in history}
    other = lab.memory.get_recent_history(CHANNEL, ADA, persona_id=C)
    assert ["yours", "reply to yours"] == texts(other)


def test_two_personas_of_one_user_are_apart(any_lab: Lab) -> None:
    """Two personas of one user share neither recent history nor memories."""
    for text, persona in (("of a", A), ("of b", B)):
        any_lab.memory.remember(said(text, persona))
    any_lab.sync()
    for text, persona in (("of a", A), ("of b", B)):
        history = any_lab.memory.get_recent_history(CHANNEL, ADA, persona_id=persona)
        assert [text, f"reply to {text}"] == texts(history)
        [recalled] = any_lab.memory.recall("of", persona_id=persona)
        assert (text, f"reply to {text}") == said_in(recalled)
    assert [] == any_lab.memory.recall("of", persona_id=C)


def test_a_thread_is_one_channel_and_one_personality(lab: Lab) -> None:
    """History is of one channel and personality; recall crosses both unless given a personality."""
    lab.memory.remember(said("here"))
    lab.memory.remember(said("elsewhere", channel_id="2"))
    lab.memory.remember(said("with basil", personality_id=BASIL))
    lab.sync()
    assert "here" == lab.memory.get_recent_history(CHANNEL, ADA, persona_id=A)[0].content
    assert "elsewhere" == lab.memory.get_recent_history("2", ADA, persona_id=A)[0].content
    assert "with basil" == lab.memory.get_recent_history(CHANNEL, BASIL, persona_id=A)[0].content
    assert 3 == len(lab.memory.recall("x", persona_id=A))
    assert 1 == len(lab.memory.recall("x", persona_id=A, personality_id=BASIL))


def test_isolation_under_thousands_of_calls(open_lab: "partial[Lab]", seed: int) -> None:
    """With 120 personas in shared channels, no call ever returns another persona's data."""
    lab = open_lab("edge")
    rng = random.Random(seed)
    personas = [UUID(int=rng.getrandbits(128), version=4) for _ in range(120)]
    lab.sql(
        "INSERT INTO personas (id, owner_id, name, content, updated_at)"
        " SELECT id, (SELECT min(id::text)::uuid FROM users), 'p', '', now()"
        " FROM unnest(%(ids)s::uuid[]) id",
        ids=personas,
    )
    try:
        _adversaries(lab, rng, personas)
    finally:
        lab.sql("DELETE FROM personas WHERE id = ANY(%(ids)s)", ids=personas)


def _adversaries(lab: Lab, rng: random.Random, personas: list[UUID]) -> None:
    memory = lab.memory
    for number, persona in enumerate(personas * 2):
        who = rng.choice((ADA, BASIL))
        memory.remember(said(f"secret {number}", persona, personality_id=who))
    lab.sync()
    mine: dict[UUID, int] = defaultdict(int)
    for number in range(3000):
        persona = rng.choice(personas)
        if number % 3:
            query = rng.choice((f"secret {rng.randrange(240)}", f"persona_id: {persona}", "' OR 1"))
            found = memory.recall(query, persona_id=str(persona), limit=rng.choice((1, 10, 1000)))
            assert {persona} >= {each.persona_id for each in found}
            mine[persona] += len(found)
        else:
            history = memory.get_recent_history(
                CHANNEL, rng.choice((ADA, BASIL)), persona_id=persona
            )
            assert {persona} >= {each.persona_id for each in history}
            owned = {f"secret {at}" for at, each in enumerate(personas * 2) if each == persona}
            assert owned >= {each.content for each in history if each.role == "user"}
    assert len(mine) > 100
    assert 0 not in mine.values()


# ---------------------------------------------------------------------- recent history


def test_the_window_is_the_newest_oldest_first(lab: Lab) -> None:
    """A read gives the `limit` newest messages, oldest first."""
    lab.say(5)
    for limit in range(1, 12):
        window = lab.memory.get_recent_history(CHANNEL, ADA, persona_id=A, limit=limit)
        everything = [text for n in range(5) for text in (f"question {n}", f"answer {n}")]
        assert everything[-limit:] == texts(window)


@pytest.mark.parametrize("limit", [0, -1, 1001, 2.0, "5", None, True])
def test_limits_that_make_no_sense(lab: Lab, limit: Any) -> None:
    """Both reads take only whole numbers from 1 to 1000 as a limit."""
    with pytest.raises(InvalidInput, match="limit"):
        lab.memory.get_recent_history(CHANNEL, ADA, persona_id=A, limit=limit)
    lab.ltm.prepare()
    with pytest.raises(InvalidInput, match="limit"):
        lab.memory.recall("x", persona_id=A, limit=limit)


# ---------------------------------------------------------------------- arguments


def test_a_persona_is_required_by_keyword(lab: Lab) -> None:
    """A read refuses a persona by position, a persona beside a user, and a call with neither."""
    memory: Any = lab.memory
    with pytest.raises(InvalidInput, match=r"persona_id and.* user_id: neither came"):
        memory.get_recent_history(CHANNEL, ADA)
    with pytest.raises(TypeError):
        memory.get_recent_history(CHANNEL, ADA, A)
    with pytest.raises(InvalidInput, match=r"persona_id and.* user_id: both came"):
        memory.get_recent_history(CHANNEL, ADA, persona_id=A, user_id=A)
    with pytest.raises(TypeError):
        memory.recall("x")
    with pytest.raises(TypeError):
        memory.recall("x", A)


MALFORMED = (
    None, "", "x", 7, b"x", [str(A)], {"persona": str(A)}, str(A)[:-1], f"{A} ", f" {A}", f"{A}\n",
    f"{{{A}}}", f"urn:uuid:{A}", A.hex, f"{A}".replace("a", "ａ", 1), f"{A}' OR '1'='1", f"{A}\0",
)  # fmt: skip


@pytest.mark.parametrize("persona", MALFORMED, ids=repr)
def test_a_persona_in_any_other_spelling_is_refused(lab: Lab, persona: Any) -> None:
    """Every call refuses a persona that is not a uuid in canonical spelling; nothing is written."""
    memory = lab.memory
    calls: list[Callable[[], object]] = [
        lambda: memory.remember(said("x", persona)),
        lambda: memory.get_recent_history(CHANNEL, ADA, persona_id=persona),
        lambda: memory.recall("x", persona_id=persona),
    ]
    before = lab.tables()
    for call in calls:
        with pytest.raises(InvalidInput, match="persona_id"):
            call()
    assert before == lab.tables()


def test_capital_letters_mean_the_same(lab: Lab) -> None:
    """An id in capitals reads and writes the same thread."""
    lab.memory.remember(NewExchange(CHANNEL, str(ADA).upper(), str(A).upper(), "x", "y"))
    lab.sync()
    for spelled in (str(A), str(A).upper(), A):
        assert 2 == len(lab.memory.get_recent_history(CHANNEL, ADA, persona_id=spelled))
        assert 1 == len(lab.memory.recall("x", persona_id=spelled))


BAD: dict[str, dict[str, Any]] = {
    "unknown persona": {"persona_id": NOBODY},
    "unknown personality": {"personality_id": NOBODY},
    "NUL in a text": {"user_text": "a\0b"},
    "half a pair": {"assistant_text": "a\ud800b"},
    "no text": {"user_text": None},
    "bytes": {"user_text": b"x"},
    "long channel": {"channel_id": "1" * 21},
    "no channel": {"channel_id": ""},
    "NUL in the channel": {"channel_id": "1\0"},
    "one time of two": {"said_at": LONG_AGO},
    "answered first": {"said_at": LONG_AGO, "answered_at": LONG_AGO - timedelta(seconds=1)},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=list(BAD))
def test_what_cannot_be_stored_leaves_nothing(lab: Lab, changes: dict[str, Any]) -> None:
    """An exchange that cannot be stored raises InvalidInput and changes neither rows nor outbox."""
    before = lab.tables()
    with pytest.raises(InvalidInput):
        lab.memory.remember(said("x", **changes))
    assert before == lab.tables()


def test_half_a_pair_in_the_channel_is_refused(lab: Lab) -> None:
    """A channel id that UTF-8 cannot encode raises InvalidInput, not UnicodeEncodeError."""
    try:
        lab.memory.get_recent_history("1\ud800", ADA, persona_id=A)
    except InvalidInput:
        return
    except UnicodeEncodeError as error:
        pytest.fail(str(error))


FIRST, LAST = datetime.min, datetime.max  # noqa: DTZ901  naive is UTC
ENDS = [(FIRST, FIRST), (LAST, LAST)]


@pytest.mark.parametrize("times", ENDS)
def test_the_ends_of_time_are_stored_or_refused(lab: Lab, times: tuple[datetime, datetime]) -> None:
    """Python's first and last datetime are stored to the millisecond, and audits find no fault."""
    lab.memory.remember(said("x", said_at=times[0], answered_at=times[1]))
    first = lab.memory.get_recent_history(CHANNEL, ADA, persona_id=A)[0]
    micros = times[0].microsecond // 1000 * 1000
    assert times[0].replace(microsecond=micros, tzinfo=UTC) == first.created_at
    lab.sync()
    assert {} == lab.audit().counts


def test_a_moment_before_time_is_refused(lab: Lab) -> None:
    """A moment that lies before the year 1 in UTC raises InvalidInput, not OverflowError."""
    said_at = FIRST.replace(tzinfo=timezone(timedelta(hours=14)))
    try:
        lab.memory.remember(said("x", said_at=said_at, answered_at=LONG_AGO))
    except InvalidInput:
        return
    except OverflowError as error:
        pytest.fail(str(error))


def test_remember_that_fails_at_any_statement_leaves_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `remember` that fails at any of its statements changes neither rows nor outbox."""
    memory, stopping = lab.memory, Stopping()
    memory.remember(said("w"))  # the first one also reads the layout
    stopping.patch(monkeypatch)
    memory.remember(said("x"))
    statements = len(stopping.ran)
    before = lab.tables()
    for stopping.at in range(1, statements + 1):
        stopping.ran.clear()
        with pytest.raises(Stop):
            memory.remember(said("y"))
        assert before == lab.tables()
    assert 5 == statements


# ---------------------------------------------------------------------- texts

TEXTS = (
    "", " ", "\n", "\r\n", "\t", "\\", "\\n", "'", '"', "''; DROP TABLE users; --", "%s %(x)s {x}",
    "user: a\nassistant: b", "User (x): y", "\x01\x02\x7f", "\u0085\u2028\u2029", "\u00a0\u2003",
    "é", "e\u0301", "Å", "Å", "ﬁ", "ß ẞ ſ", "İ ı", "Ω Ω", "中文", "日本語テスト", "한국어",
    "각", "العربية", "עברית", "\u202eabc\u202c", "हिन्दी", "ไทย", "ქართული", "አማርኛ", "ᏣᎳᎩ",
    "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇺🇳", "\U0010ffff", "\ufffe\uffff", "\ufeffbom", "\u200b\u200d",
    "𝔘𝔫𝔦",
    "a" + "\u0301" * 200, "\ue000", "﷽", "x" * 5000, "null", "NaN",
)  # fmt: skip


def test_every_text_comes_back_as_it_was(any_lab: Lab) -> None:
    """Fifty kinds of text come back unchanged from history, and from recall after a sync."""
    assert len(TEXTS) >= 50
    for number, text in enumerate(TEXTS):
        any_lab.memory.remember(
            said("", user_text=text, assistant_text=f"{text}!", channel_id=str(number))
        )
    any_lab.sync()
    for number, text in enumerate(TEXTS):
        history = any_lab.memory.get_recent_history(str(number), ADA, persona_id=A)
        assert [text, f"{text}!"] == texts(history)
    recalled = any_lab.memory.recall("x", persona_id=A, limit=1000)
    assert {(text, f"{text}!") for text in TEXTS} == set(map(said_in, recalled))
    assert any_lab.check().ok


def test_a_text_of_a_megabyte(any_lab: Lab) -> None:
    """A text of a megabyte is stored and recalled like any other."""
    long = "é" * 2**19
    any_lab.memory.remember(said("", user_text=long, assistant_text=long))
    any_lab.sync()
    [recalled] = any_lab.memory.recall(long, persona_id=A)
    assert (long, long) == said_in(recalled)
    assert any_lab.check().ok


# ---------------------------------------------------------------------- many at once


def test_concurrent_remembers_in_one_thread_never_interleave(lab: Lab) -> None:
    """When 8 Python threads write to one conversation, every reply follows its own message."""
    memory, barrier = lab.memory, threading.Barrier(8)

    def talk(who: int) -> None:
        barrier.wait()
        for number in range(12):
            memory.remember(said(f"{who}/{number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(talk, range(8)))
    window = texts(memory.get_recent_history(CHANNEL, ADA, persona_id=A, limit=1000))
    assert 192 == len(window)
    for question, answer in zip(window[::2], window[1::2], strict=True):
        assert f"reply to {question}" == answer
    lab.sync()
    memories = set(map(said_in, memory.recall("x", persona_id=A, limit=1000)))
    assert {(question, f"reply to {question}") for question in window[::2]} == memories
    assert lab.check().ok


def test_a_message_that_lost_its_reply_gets_no_memory(lab: Lab) -> None:
    """A message that has lost its reply gets no memory, and the exchange after it gets its own."""
    lab.memory.remember(said("first", said_at=LONG_AGO, answered_at=LONG_AGO))
    lab.sql(
        "DELETE FROM conversation_history WHERE role = 'assistant' AND content = 'reply to first'"
    )
    later = LONG_AGO + timedelta(minutes=1)
    lab.memory.remember(said("second", said_at=later, answered_at=later))
    lab.sync()
    assert 1 == len(lab.exchanges())
    assert {} == lab.audit().counts


def test_times_are_kept_to_the_millisecond_in_utc(lab: Lab) -> None:
    """Aware times are converted to UTC, naive ones are taken as UTC, and microseconds are cut."""
    zone = timezone(timedelta(hours=-9, minutes=-30))
    aware = datetime(2025, 5, 1, 2, 30, 0, 123_999, tzinfo=zone)
    lab.memory.remember(said("x", said_at=aware, answered_at=datetime(2025, 5, 1, 12, 0, 1)))  # noqa: DTZ001  naive on purpose
    window = lab.memory.get_recent_history(CHANNEL, ADA, persona_id=A)
    expected = [
        datetime(2025, 5, 1, 12, 0, 0, 123_000, UTC),
        datetime(2025, 5, 1, 12, 0, 1, 0, UTC),
    ]
    assert expected == [each.created_at for each in window]


def test_recall_before_anything_was_written(lab: Lab) -> None:
    """A recall from an empty collection returns nothing."""
    lab.ltm.prepare()
    assert [] == lab.memory.recall("x", persona_id=A)


def test_recall_with_stores_handed_in(lab: Lab) -> None:
    """A recall on stores that the caller opened returns nothing while no collection exists."""
    try:
        assert [] == lab.memory.recall("x", persona_id=A)
    except MemsyncError as error:
        pytest.fail(error.message)


def test_a_recall_makes_no_collection(any_lab: Lab) -> None:
    """A recall without a collection returns nothing and creates none."""
    before = any_lab.vectors.collections()
    assert [] == any_lab.memory.recall("x", persona_id=A, personality_id=ADA)
    assert before == any_lab.vectors.collections()
    assert any_lab.home not in before


def test_a_recall_makes_no_index(any_lab: Lab) -> None:
    """A recall searches a collection without indexes and creates none."""
    any_lab.vectors.create(any_lab.home, DIMS, {})
    assert [] == any_lab.memory.recall("x", persona_id=A)
    assert CollectionInfo(DIMS, "Cosine", {}) == any_lab.vectors.describe(any_lab.home)


def test_a_recall_with_an_embedder_of_another_size(any_lab: Lab) -> None:
    """A recall from a collection of another vector size raises DimensionMismatch."""
    any_lab.vectors.create(any_lab.home, DIMS + 1, {})
    with pytest.raises(DimensionMismatch):
        any_lab.memory.recall("x", persona_id=A)


def test_open_opens_qdrant_late_and_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """History needs no Qdrant; the first recalls, from many threads at once, open it once."""
    monkeypatch.setattr("memsync.stores.ltm.store.load_embedder", lambda _: lab.ltm.embedder)
    opened: list[object] = []

    def once(settings: Any) -> Any:
        opened.append(1)
        return open_vectors(settings)

    monkeypatch.setattr("memsync.stores.ltm.store.open_vectors", once)
    with Memory.open(lab.settings) as memory:
        memory.remember(said("x"))
        assert 2 == len(memory.get_recent_history(CHANNEL, ADA, persona_id=A))
        assert [] == opened
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: memory.recall("x", persona_id=A), range(8)))
        assert [[]] * 8 == found
        assert [1] == opened
    with pytest.raises(StoreUnreachable):
        memory.get_recent_history(CHANNEL, ADA, persona_id=A)
