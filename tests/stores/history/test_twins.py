"""Tests that Python and SQL agree on the memory digest and on what an exchange is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, LiteralString, get_args
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from memsync.model.digests import memory_digest
from memsync.model.ids import MessageId, PersonaId, PersonalityId
from memsync.model.records import Exchange, Message, Role, exchanges
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Postgres, Session

if TYPE_CHECKING:
    from support.app import App

AWKWARD = (
    "",
    " ",
    "'",
    '"',
    "\\",
    "\\x00",
    "%s",
    "é",
    "e\u0301",
    "🌍",
    "\U0010ffff",
    "\u202e",
    "\n",
)
PLANES = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXTS = st.one_of(
    st.text(PLANES),
    st.sampled_from(AWKWARD),
    st.builds(
        lambda text, times: text * times,
        st.text(PLANES, min_size=1, max_size=5),
        st.integers(1, 20_000),
    ),
)
FIELDS = st.tuples(
    st.uuids(),
    st.uuids(),
    st.uuids(),
    st.text(PLANES, max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    TEXTS,
    TEXTS,
)
MOMENTS = st.one_of(
    st.integers(0, 3).map(lambda ms: datetime(2025, 3, 1) + timedelta(milliseconds=ms)),  # noqa: DTZ001  the column has no zone
    st.datetimes(datetime(1960, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001
        lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    ),
)


DIGEST: LiteralString = "SELECT memsync.memory_digest(%s, %s, %s, %s, %s, %s, %s)"
INSERT: LiteralString = """
    INSERT INTO conversation_history
        (id, channel_id, personality_id, persona_id, role, content, created_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s)"""


def test_digest_is_the_same_in_sql(app: App) -> None:
    """Python and SQL compute the same digest for texts of every kind and length."""
    app.run(Phase.ISOLATE)
    with app.connected() as connection:

        @given(st.lists(FIELDS, min_size=1, max_size=5))
        def same(memories: list[tuple[UUID, UUID, UUID, str, int, str, str]]) -> None:
            expected = [memory_digest(*fields) for fields in memories]
            assert expected == [
                row[0] for each in memories for row in connection.execute(DIGEST, each)
            ]

        same()
        found = connection.execute(
            DIGEST, (UUID(int=1), UUID(int=2), UUID(int=3), "1", 4, "te", "xT")
        ).fetchone()
    assert found is not None
    assert found[0] != memory_digest(UUID(int=1), UUID(int=2), UUID(int=3), "1", 4, "te", "xt")


def messages_of(app: App) -> st.SearchStrategy[list[Message]]:
    """Messages of a few threads, many at the same moment, in any order of roles."""
    personas = [PersonaId(each.id) for each in app.world.cast.personas[:2]]
    personalities = [PersonalityId(each.id) for each in app.world.cast.personalities[:2]]
    return st.lists(
        st.builds(
            Message,
            id=st.uuids().map(MessageId),
            channel_id=st.sampled_from(["1", "2"]),
            personality_id=st.sampled_from(personalities),
            persona_id=st.sampled_from(personas),
            role=st.sampled_from(get_args(Role)),
            content=st.one_of(st.text(PLANES, max_size=8), st.sampled_from(AWKWARD)),
            created_at=MOMENTS,
        ),
        max_size=12,
        unique_by=lambda message: message.id,
    )


def asked(session: Session, messages: Sequence[Message]) -> dict[str, list[Exchange]]:
    """The exchanges of these messages, by each statement that uses the fragment `exchange`."""
    ids = [message.id for message in messages]
    personas = sorted({message.persona_id for message in messages})
    found = {
        "page": session.rows("exchanges_page", start=UUID(int=0), limit=1000),
        "by anchor": session.rows("exchanges_by_anchor", ids=ids),
        "of personas": [
            row
            for persona in personas
            for row in session.rows("exchanges_of_personas", ids=[persona])
        ],
    }
    return {
        way: sorted(
            (
                Exchange(
                    row.anchor_id,
                    row.persona_id,
                    row.personality_id,
                    row.channel_id,
                    row.created_at_ms,
                    row.user_text,
                    row.assistant_text,
                    row.said_id,
                )
                for row in rows
            ),
            key=lambda each: each.anchor_id.bytes,
        )
        for way, rows in found.items()
    }


def test_exchanges_are_the_same_in_sql(app: App) -> None:
    """Python and SQL pair the same messages, with equal times and any order of roles."""
    app.run()
    app.do("TRUNCATE conversation_history CASCADE")
    paired = 0
    with Postgres.open(app.url) as postgres, postgres.session() as session:

        @given(messages_of(app))
        def same(messages: list[Message]) -> None:
            nonlocal paired
            expected = exchanges(messages)
            with session.connection.transaction(force_rollback=True):
                for m in messages:
                    values = (m.id, m.channel_id, m.personality_id, m.persona_id, m.role)
                    session.connection.execute(INSERT, (*values, m.content, m.created_at))
                for way, found in asked(session, messages).items():
                    assert expected == found, way
            paired += len(expected)

        same()
    assert paired > 0
