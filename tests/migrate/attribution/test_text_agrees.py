"""SQL and Python agree on whether the text of a memory is that of an exchange."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memsync.stores.ltm.layouts import says_as_deployed
from memsync.stores.postgres import Postgres, statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.postgres import PostgresCluster

texts = st.text(
    st.sampled_from("ab: ()\n\\%é") | st.characters(exclude_characters="\0", codec="utf-8"),
    max_size=12,
)
names = st.text(st.sampled_from("ab: ()é"), min_size=1, max_size=6)

GIVEN = (
    "(SELECT %s::text AS content) p, (SELECT %s::text AS content) u, (SELECT %s::text AS content) a"
)
"""A memory, the user's message and the reply, as the fragment `agrees` names them."""


@pytest.fixture(scope="module")
def agrees(postgres_cluster: PostgresCluster) -> Iterator[Callable[[str, str, str], bool]]:
    """Call it for the database's answer about a text and an exchange."""
    query = " ".join(("SELECT coalesce(", statement("agrees"), ", false) FROM", GIVEN))
    with Postgres.open(postgres_cluster.url) as postgres, postgres.session() as session:

        def asked(*texts: str) -> bool:
            (found,) = session.connection.execute(query, texts).fetchone()  # type: ignore[misc]
            return bool(found)

        yield asked


@given(user=texts, reply=texts, name=names, personality=names)
def test_a_memory_agrees_with_its_exchange(
    agrees: Callable[[str, str, str], bool], user: str, reply: str, name: str, personality: str
) -> None:
    """A memory agrees with its exchange, whatever the texts and names are."""
    for content in (
        f"User ({name}): {user}\n{personality}: {reply}",
        f"user: {user}\nassistant: {reply}",
    ):
        assert agrees(content, user, reply)


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
    agrees: Callable[[str, str, str], bool],
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
            canonical = text == f"user: {question}\nassistant: {answer}"
            expected = canonical or says_as_deployed(text, question, answer)
            assert expected == agrees(text, question, answer), (text, question, answer)


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
def test_other_texts_do_not_agree(
    agrees: Callable[[str, str, str], bool], content: str, said: bool
) -> None:
    """Texts close to the exchange's get the expected answer, in SQL and in Python."""
    assert said == agrees(content, "hi there", "yo")
    assert said == says_as_deployed(content, "hi there", "yo")
