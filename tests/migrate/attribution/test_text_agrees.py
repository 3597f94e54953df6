"""SQL and Python agree on whether the text of a memory is that of an exchange."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memsync.model.records import Memory
from memsync.stores.ltm.layouts import says
from memsync.stores.postgres import Postgres, statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.postgres import PostgresCluster

    Agrees = Callable[[Memory, str, str], bool]

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
) -> Memory:
    """A memory of this one text, or of these two."""
    return Memory(None, None, None, None, user_text, assistant_text, content)


@pytest.fixture(scope="module")
def agrees(postgres_cluster: PostgresCluster) -> Iterator[Agrees]:
    """Call it for the answer about a memory and an exchange; both languages must give the same."""
    query = " ".join(("SELECT coalesce(", statement("agrees"), ", false) FROM", GIVEN))
    with Postgres.open(postgres_cluster.url) as postgres, postgres.session() as session:

        def asked(memory: Memory, user: str, reply: str) -> bool:
            texts = memory.content, memory.user_text, memory.assistant_text, user, reply
            (found,) = session.connection.execute(query, texts).fetchone()  # type: ignore[misc]
            assert says(memory, user, reply) == found, (memory, user, reply)
            return bool(found)

        yield asked


@given(user=texts, reply=texts, name=names, personality=names)
def test_a_memory_agrees_with_its_exchange(
    agrees: Agrees, user: str, reply: str, name: str, personality: str
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
    agrees: Agrees, user: str, reply: str, other: str
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
    agrees: Agrees,
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
def test_other_texts_do_not_agree(agrees: Agrees, content: str, said: bool) -> None:
    """Texts close to the exchange's get the expected answer, in SQL and in Python."""
    assert said == agrees(of(content), "hi there", "yo")
