"""SQL and Python agree on whether the text of a memory is that of an exchange."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memsync.model.records import StoredMemory
from memsync.stores.ltm.texts import says, says_more_as_deployed
from memsync.stores.postgres import Postgres, statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.postgres import PostgresCluster

    Says = Callable[[StoredMemory, str, str], bool]

texts = st.text(
    st.sampled_from("ab: ()\n\\%é") | st.characters(exclude_characters="\0", codec="utf-8"),
    max_size=12,
)
names = st.text(st.sampled_from("ab: ()é"), min_size=1, max_size=6)

GIVEN = (
    "(SELECT %s::text AS content, %s::text AS user_text, %s::text AS assistant_text) p,"
    " (SELECT %s::text AS content) u, (SELECT %s::text AS content) a"
)
"""A memory, the user's message and the reply, as the fragment `agrees` names them."""


def of(
    content: str | None = None, *, user_text: str | None = None, assistant_text: str | None = None
) -> StoredMemory:
    """A memory of this one text, or of these two."""
    return StoredMemory(None, None, None, None, user_text, assistant_text, content)


def says_more_of(memory: StoredMemory, user: str, reply: str) -> bool:
    """The answer of the fragment `says_more`: two texts never say more than their exchange."""
    if memory.content is None or memory.assistant_text is not None:
        return False
    return says_more_as_deployed(memory.content, user, reply)


@contextmanager
def answers(cluster: PostgresCluster, fragment: str, twin: Says) -> Iterator[Says]:
    """The database's answer by the fragment; Python's, by its twin, must be the same."""
    query = " ".join(("SELECT coalesce(", statement(fragment), ", false) FROM", GIVEN))
    with Postgres.open(cluster.url) as postgres, postgres.session() as session:

        def asked(memory: StoredMemory, user: str, reply: str) -> bool:
            texts = memory.content, memory.user_text, memory.assistant_text, user, reply
            (found,) = session.connection.execute(query, texts).fetchone()  # type: ignore[misc]
            assert twin(memory, user, reply) == found, (memory, user, reply)
            return bool(found)

        yield asked


@pytest.fixture(scope="module")
def agrees(postgres_cluster: PostgresCluster) -> Iterator[Says]:
    """Call it for whether a memory is of an exchange."""
    with answers(postgres_cluster, "agrees", says) as asked:
        yield asked


@pytest.fixture(scope="module")
def says_more(postgres_cluster: PostgresCluster) -> Iterator[Says]:
    """Call it for whether a memory says more than an exchange."""
    with answers(postgres_cluster, "says_more", says_more_of) as asked:
        yield asked


@given(user=texts, reply=texts, name=names, personality=names)
def test_a_memory_agrees_with_its_exchange(
    agrees: Says, user: str, reply: str, name: str, personality: str
) -> None:
    """A memory agrees with its exchange, whatever the texts and names are."""
    for memory in (
        of(f"User ({name}): {user}\n{personality}: {reply}"),
        of(f"user: {user}\nassistant: {reply}"),
        of(user_text=user, assistant_text=reply),
    ):
        assert agrees(memory, user, reply)


@given(user=texts, reply=texts, other=texts)
def test_two_texts_agree_with_one_exchange_only(
    agrees: Says, user: str, reply: str, other: str
) -> None:
    """A memory of two texts agrees with no exchange whose texts only join to the same."""
    memory = of("user: x\nassistant: y", user_text=user, assistant_text=reply)
    for question, answer in ((user, other), (other, reply), (reply, user), ("x", "y")):
        assert ((question, answer) == (user, reply)) == agrees(memory, question, answer)
    whole = f"{user}\nassistant: {other}", reply
    parted = user, f"{other}\nassistant: {reply}"
    assert not agrees(of(user_text=whole[0], assistant_text=whole[1]), *parted)
    assert agrees(of(f"user: {user}\nassistant: {other}\nassistant: {reply}"), *parted)


@given(
    user=texts,
    reply=texts,
    name=names,
    personality=names,
    other=texts,
    content=texts,
    seed=st.randoms(),
)
def test_both_languages_agree_on_what_agrees(
    agrees: Says,
    user: str,
    reply: str,
    name: str,
    personality: str,
    other: str,
    content: str,
    seed: random.Random,
) -> None:
    """SQL and Python say the same of texts that were cut, joined and mixed up."""
    whole = f"User ({name}): {user}\n{personality}: {reply}"
    cut = seed.randrange(len(whole) + 1)
    for text in (whole, content, whole[:cut] + other + whole[cut:], whole[cut:], whole[:cut]):
        for question, answer in ((user, reply), (other, reply), (user, other), (reply, user)):
            agrees(of(text), question, answer)
            agrees(of(text, user_text=text, assistant_text=other), question, answer)
            agrees(of(text, user_text=user), question, answer)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("User (A): hi\nBot: yo", False),
        ("User (A): oh, hi\nBot: yo", False),
        ("User (A): hi\nBot: hi\nBot: yo", False),
        ("User (A): hi there\nBot: yo", True),
        ("User (A (aka B): x): hi there\nBot 2: yo", True),
        ("hi there\nBot: yo", False),
        ("User (A\nB): hi there\nBot: yo", False),
        ("User (A): hi there\n: yo", False),
        ("User (A): hi there: yo", False),
    ],
)
def test_other_texts_do_not_agree(agrees: Says, content: str, said: bool) -> None:
    """Texts close to the exchange's get the expected answer, in SQL and in Python."""
    assert said == agrees(of(content), "hi there", "yo")


WORDS = st.text(st.sampled_from("ab: ()é\n"), max_size=8)


@given(user=WORDS, reply=WORDS, behind=WORDS, added=WORDS, seed=st.randoms())
def test_both_languages_agree_on_what_says_more(
    says_more: Says,
    user: str,
    reply: str,
    behind: str,
    added: str,
    seed: random.Random,
) -> None:
    """SQL and Python say the same of texts with additions, and with something cut away."""
    gaps = ("", " ", "\n", "\n\n")
    whole = f"User (A): {user}{seed.choice(gaps)}{behind}\nB: {reply}{seed.choice(gaps)}{added}"
    cut = seed.randrange(len(whole) + 1)
    for text in (whole, whole[:cut], whole[cut:], whole[:cut] + whole[cut + 1 :]):
        for question, answer in ((user, reply), (reply, user), (user, added), (behind, reply)):
            says_more(of(text), question, answer)
            assert not says_more(of(text, user_text=user, assistant_text=reply), question, answer)


HI = "User (A): hi there"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{HI}\n\n[Image: a cat]\nBot: yo", True),
        (f"{HI} [Image: a cat]\nBot: yo", True),
        (f"{HI}\nBot: yo\n(edited)", True),
        (f"{HI}\nBot: yo [Image: a dog]", True),
        (f"{HI}\n\n[Image: a cat]\nBot: yo\n[Image: a dog]", True),
        (f"{HI}\n\n[Image: yo cat]\nBot: yo", True),
        ("User (A (aka B): x): hi there\n[a cat]\nBot: yo", True),
        (f"{HI}\nBot: yo", True),
        # Another text that begins alike.
        (f"{HI}fore\nBot: yo", False),
        (f"{HI}\nBot: yoghurt", False),
        (f"{HI}, you\nBot: yo", False),
        # An addition before either text.
        ("User (A): oh, hi there\nBot: yo", False),
        (f"{HI}\nBot: well, yo", False),
        # Another reply; the reply's text stands in the addition.
        (f"{HI}\n\n[Image: yo cat]\nBot: no", False),
        (f"{HI}\n\na cat\n: yo", False),
        ("User (A\nB): hi there\na cat\nBot: yo", False),
        ("hi there [a cat]\nBot: yo", False),
    ],
)
def test_enriched_texts(says_more: Says, content: str, said: bool) -> None:
    """An addition of the app behind either text is recognised, and nothing else is."""
    assert said == says_more(of(content), "hi there", "yo")


@given(user=texts, reply=texts, name=names, personality=names, added=names)
def test_an_enriched_memory_says_more(
    says_more: Says,
    user: str,
    reply: str,
    name: str,
    personality: str,
    added: str,
) -> None:
    """Whatever the texts are, an addition on a line of its own is recognised behind the message."""
    if ")" in name or ":" in added:
        return
    enriched = of(f"User ({name}): {user}\n{added}\n{personality}: {reply}")
    assert says_more(enriched, user, reply)
