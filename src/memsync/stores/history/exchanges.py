"""Reads and writes messages and exchanges in Postgres, with a function for each question.

The statements are in exchanges.sql. The functions turn their rows into records, so no caller sees a
row. Times in records carry the zone UTC; the column stores them without a zone.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from memsync.errors import MemsyncError, SchemaMismatch
from memsync.model.ids import MessageId, PersonaId, PersonalityId, UserId
from memsync.model.records import Exchange, Message, Thread, UserMessage
from memsync.stores.postgres import Session, TryAgain, UndefinedColumn, relations

_LAST_UUID = (1 << 128) - 1


@dataclass(frozen=True, slots=True)
class MessageWithoutPersona:
    """A message that has no persona, or one that does not exist.

    `total` is how many such messages there are in all.
    """

    id: MessageId
    total: int
    persona_id: PersonaId | None = None


@dataclass(frozen=True, slots=True)
class UnreadableMessage:
    """A message whose time Python cannot hold. `created_at` is the server's spelling of it.

    `total` is how many such messages there are in all.
    """

    id: MessageId
    created_at: str | None
    total: int


@dataclass(frozen=True, slots=True)
class Moment:
    """A personality, and the window in which its reply may have been written.

    `from_ms` and `to_ms` are milliseconds since the Unix epoch; the window includes both.
    """

    personality_id: UUID
    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class LoneReply:
    """A reply to a persona that follows no message of the user's, written at `created_at_ms`."""

    persona_id: UUID
    personality_id: UUID
    created_at_ms: int
    text: str


# ---------------------------------------------------------------------- messages


def recent_history(session: Session, thread: Thread, limit: int) -> list[Message]:
    """The newest `limit` messages of a thread, oldest first, in the thread's order.

    Raises: MemsyncError when the database returns another persona's message.
    """
    rows = session.rows(
        "recent_history",
        channel_id=thread.channel_id,
        personality_id=thread.personality_id,
        persona_id=thread.persona_id,
        limit=limit,
    )
    return [
        Message(
            id=MessageId(row.id),
            channel_id=thread.channel_id,
            personality_id=thread.personality_id,
            persona_id=PersonaId(_own(row.persona_id, thread.persona_id, "persona")),
            role=row.role,
            content=row.content,
            created_at=row.created_at.replace(tzinfo=UTC),
        )
        for row in reversed(rows)
    ]


def recent_history_of_user(
    session: Session,
    *,
    channel_id: str,
    personality_id: PersonalityId,
    user_id: UserId,
    limit: int,
) -> list[UserMessage]:
    """The newest `limit` messages of a user's thread, oldest first, while `user_id` exists.

    The statement lacks the mark of memsync's own, because contract must see it as a client that
    still reads by user.

    Raises: SchemaMismatch after contract; MemsyncError when the database returns another user's
    message.
    """
    try:
        rows = session.rows_for_app(
            "recent_history_of_user",
            channel_id=channel_id,
            personality_id=personality_id,
            user_id=user_id,
            limit=limit,
        )
    except SchemaMismatch as error:
        if not isinstance(error.__cause__, UndefinedColumn):
            raise
        raise SchemaMismatch(
            f"{session.label}: the history has no user_id since contract; read by persona_id"
        ) from error
    return [
        UserMessage(
            id=MessageId(row.id),
            channel_id=channel_id,
            personality_id=personality_id,
            user_id=UserId(_own(row.user_id, user_id, "user")),
            role=row.role,
            content=row.content,
            created_at=row.created_at.replace(tzinfo=UTC),
        )
        for row in reversed(rows)
    ]


def _own(found: UUID, asked: UUID, whose: str) -> UUID:
    """The owner that a row has, if it is the one that was asked for."""
    if found != asked:
        raise MemsyncError(
            f"the database returned a message of {whose} {found}, asked for those of {asked}. None "
            "was handed out; see whether conversation_history is the app's table, and not a view"
        )
    return found


def insert_message(session: Session, message: Message) -> None:
    """Write one message.

    Raises: InvalidInput for a persona or personality that does not exist.
    """
    session.run(
        "insert_message",
        id=message.id,
        channel_id=message.channel_id,
        personality_id=message.personality_id,
        persona_id=message.persona_id,
        role=message.role,
        content=message.content,
        created_at=message.created_at.replace(tzinfo=None),
    )


def standing_messages(session: Session, message_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these messages stand."""
    return {row.id for row in session.rows("standing_messages", ids=list(message_ids))}


def standing_replies(session: Session, message_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these messages stand and are replies."""
    return {row.id for row in session.rows("standing_replies", ids=list(message_ids))}


def message_times(session: Session, message_ids: Sequence[UUID]) -> dict[UUID, int]:
    """When these messages were written, in ms. One that is gone, or of a time that cannot be read,
    is absent.
    """
    return {row.id: row.at_ms for row in session.rows("message_times", ids=list(message_ids))}


def lock_thread(session: Session, thread: Thread) -> None:
    """Keep other writers out of this thread until the transaction ends.

    Raises: TryAgain while another one writes.
    """
    name = f"{thread.channel_id}/{thread.personality_id}/{thread.persona_id}"
    if not session.row("lock_thread", thread=name).taken:
        raise TryAgain("another call has been writing to this thread")


def thread_clock(session: Session, thread: Thread) -> datetime:
    """The time for the thread's next message: now, or 1 ms after its newest if that is later."""
    moment: datetime = session.row(
        "thread_clock",
        channel_id=thread.channel_id,
        personality_id=thread.personality_id,
        persona_id=thread.persona_id,
    ).moment
    return moment.replace(tzinfo=UTC)


def first_gap(
    session: Session, thread: Thread, said_at: datetime
) -> tuple[datetime | None, datetime | None]:
    """The times of the two messages between which an exchange of `said_at` has its place.

    There is a free millisecond between them, at `said_at` or after it, and they are no exchange.
    None stands for the thread's begin and end.
    """
    row = session.rows(
        "first_gap",
        channel_id=thread.channel_id,
        personality_id=thread.personality_id,
        persona_id=thread.persona_id,
        said_at=said_at.replace(tzinfo=None),
    )[0]
    after, before = (each and each.replace(tzinfo=UTC) for each in row)
    return after, before


def messages_without_persona(session: Session, limit: int) -> list[MessageWithoutPersona]:
    """The first `limit` messages that have no persona, by id."""
    rows = session.rows("messages_without_persona", limit=limit)
    return [MessageWithoutPersona(MessageId(row.id), row.total) for row in rows]


def messages_of_unknown_personas(session: Session, limit: int) -> list[MessageWithoutPersona]:
    """The first `limit` messages that have a persona which does not exist, by id."""
    return [
        MessageWithoutPersona(MessageId(row.id), row.total, PersonaId(row.persona_id))
        for row in session.rows("messages_of_unknown_personas", limit=limit)
    ]


def unreadable_messages(session: Session, limit: int) -> list[UnreadableMessage]:
    """The first `limit` messages whose time cannot be read, by id. No other read returns them."""
    rows = session.rows("unreadable_messages", limit=limit)
    return [UnreadableMessage(MessageId(row.id), row.created_at, row.total) for row in rows]


def unreadable_threads(session: Session) -> set[Thread]:
    """The threads that have a message whose time cannot be read."""
    return {
        Thread(row.channel_id, PersonalityId(row.personality_id), PersonaId(row.persona_id))
        for row in session.rows("unreadable_threads")
    }


# ---------------------------------------------------------------------- exchanges


def exchanges_in_order(session: Session, page_rows: int = 1000) -> Iterator[Exchange]:
    """Every exchange in the order of anchor ids, read page by page."""
    start = UUID(int=0)
    while True:
        rows = session.rows("exchanges_page", start=start, limit=page_rows)
        yield from map(_exchange, rows)
        if len(rows) < page_rows or rows[-1].anchor_id.int == _LAST_UUID:
            return
        start = UUID(int=rows[-1].anchor_id.int + 1)


def exchange_digests(session: Session) -> Iterator[bytes]:
    """The anchor and the digest of every exchange, 16 bytes and 32, in the order of anchor ids.

    Until all are read the session serves nothing else.
    """
    for (row,) in session.stream("exchange_digests", ["bytea"]):
        yield row


def anchors_of_nobody(session: Session) -> Iterator[UUID]:
    """The replies to personas that do not exist, in the order of their ids; see above."""
    for (anchor,) in session.stream("anchors_of_nobody", ["uuid"]):
        yield anchor


def exchanges_by_anchor(session: Session, ids: Sequence[UUID]) -> dict[UUID, Exchange]:
    """The exchanges of these anchors. An anchor that forms no exchange is absent."""
    rows = session.rows("exchanges_by_anchor", ids=list(ids))
    return {row.anchor_id: _exchange(row) for row in rows}


def exchanges_of_personas(session: Session, personas: Sequence[UUID]) -> list[Exchange]:
    """All exchanges of these personas, thread by thread."""
    return list(map(_exchange, session.rows("exchanges_of_personas", ids=list(personas))))


def exchanges_at(
    session: Session, moments: Sequence[Moment], personas: Sequence[UUID] | None = None
) -> list[Exchange]:
    """The exchanges whose anchor was written at one of these moments: of these personas, or of any.

    Without a moment nothing is asked.
    """
    if not moments:
        return []
    personality_ids = [each.personality_id for each in moments]
    from_ms, to_ms = [each.from_ms for each in moments], [each.to_ms for each in moments]
    if personas is None:
        rows = session.rows(
            "exchanges_at", personality_ids=personality_ids, from_ms=from_ms, to_ms=to_ms
        )
    else:
        rows = session.rows(
            "exchanges_of_personas_at",
            personality_ids=personality_ids,
            from_ms=from_ms,
            to_ms=to_ms,
            personas=list(personas),
        )
    return list(map(_exchange, rows))


def _exchange(row: Any) -> Exchange:
    """The exchange in a row of the fragment `exchange`."""
    return Exchange(
        anchor_id=MessageId(row.anchor_id),
        persona_id=PersonaId(row.persona_id),
        personality_id=PersonalityId(row.personality_id),
        channel_id=row.channel_id,
        created_at_ms=row.created_at_ms,
        user_text=row.user_text,
        assistant_text=row.assistant_text,
        said_id=MessageId(row.said_id),
    )


def lone_replies(session: Session, moments: Sequence[Moment]) -> list[LoneReply]:
    """The replies of these moments that follow no message of the user's, in the order of time."""
    if not moments:
        return []
    rows = session.rows(
        "lone_replies",
        personality_ids=[each.personality_id for each in moments],
        from_ms=[each.from_ms for each in moments],
        to_ms=[each.to_ms for each in moments],
    )
    return [
        LoneReply(row.persona_id, row.personality_id, row.created_at_ms, row.content)
        for row in rows
    ]


# ---------------------------------------------------------------------- the history as a whole


def known_personas(session: Session, ids: Iterable[UUID]) -> set[UUID]:
    """Which of the given personas exist."""
    return {row.id for row in session.rows("known_personas", ids=list(ids))}


def history_is_empty(session: Session) -> bool:
    """Whether there is no message that can be read."""
    empty: bool = session.row("history_is_empty").empty
    return empty


def messages_in_stretches(session: Session, times_ms: Sequence[int]) -> dict[int, int]:
    """How many messages lie in each stretch between these ascending times; none where absent.

    Stretch 0 is before the first time, and stretch n begins with the n-th.
    """
    rows = session.rows("messages_in_stretches", times=list(times_ms))
    return {row.stretch: row.messages for row in rows}


def on_their_way(
    session: Session, ids: Collection[UUID] | None = None, *, alarm_s: float
) -> set[UUID]:
    """The messages whose exchanges the app itself still means to give a memory, by its own outbox.

    Those among `ids`, where they are given. An entry that is older than the alarm age, in seconds,
    does not count.
    """
    if not relations.existing(session, ["pending_memories"]):
        return set()
    given = None if ids is None else list(ids)
    rows = session.rows("memories_of_the_app_on_their_way", alarm_s=alarm_s, ids=given)
    return {row.id for row in rows}


def now_ms(session: Session) -> int:
    """The time by the database's clock, in milliseconds since the Unix epoch."""
    found: int = session.row("now_ms").ms
    return found
