"""The values that the stores hold: messages, exchanges, memories and points.

Decides the text that is embedded and which messages form an exchange. Does no I/O; the names of
payload keys are in `stores.ltm.payload`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Self
from uuid import UUID

from memsync.errors import InvalidInput
from memsync.model.ids import (
    MessageId,
    PersonaId,
    PersonalityId,
    PointId,
    UserId,
    plain_text,
    point_id_of,
)

Role = Literal["user", "assistant", "system"]
Vector = tuple[float, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def to_ms(moment: datetime) -> int:
    """Milliseconds since the Unix epoch, exactly. A naive `moment` is UTC, as the columns are."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MS


def from_ms(ms: int) -> datetime:
    """The UTC moment `ms` milliseconds after the Unix epoch."""
    return _EPOCH + ms * _MS


def storable_text(value: object, what: str) -> str:
    """Return `value`, as plain text, when both stores can hold it exactly.

    Raises: InvalidInput for anything but text, for NUL (Postgres cannot store it) and for lone
    surrogates (no UTF-8 spelling).
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{what} must be text, not {type(value).__name__}", field=what)
    text = plain_text(value)
    if "\0" in text:
        raise InvalidInput(
            f"{what} holds a NUL character at position {text.index(chr(0))}; Postgres cannot "
            "store one. Remove it before calling",
            field=what,
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{what} holds half a surrogate pair at position {error.start}; it has no UTF-8 "
            "spelling. Decode the text before calling",
            field=what,
        ) from None
    return text


@dataclass(frozen=True, slots=True)
class Message:
    """A row of `conversation_history`. `created_at` is UTC, to the millisecond."""

    id: MessageId
    channel_id: str
    personality_id: PersonalityId
    persona_id: PersonaId
    role: Role
    content: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class UserMessage:
    """A row of `conversation_history` before contract, read by its user."""

    id: MessageId
    channel_id: str
    personality_id: PersonalityId
    user_id: UserId
    role: Role
    content: str
    created_at: datetime


def joined(user_text: str, assistant_text: str) -> str:
    """Both texts of an exchange in one, as the embedder reads them.

    It holds no names, because names change and memories do not. Two exchanges may have one such
    text, since each may hold anything; so it identifies nothing and is no memory's payload.
    """
    return f"user: {user_text}\nassistant: {assistant_text}"


@dataclass(frozen=True, slots=True)
class Exchange:
    """An assistant message (the anchor) and the user message directly before it, as stored.

    A memory that memsync makes has the anchor's id. `created_at_ms` is the anchor's. `said_id` is
    the id of the user's message.
    """

    anchor_id: MessageId
    persona_id: PersonaId
    personality_id: PersonalityId
    channel_id: str
    created_at_ms: int
    user_text: str
    assistant_text: str
    said_id: MessageId

    @property
    def text(self) -> str:
        """The text that the embedder reads."""
        return joined(self.user_text, self.assistant_text)


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the vector store. `vector` is None when it was not read."""

    id: PointId
    payload: Mapping[str, object]
    vector: Vector | None = None


class Place(NamedTuple):
    """Where a point lies. The same id in two collections is two points."""

    collection: str
    point_id: PointId

    def __str__(self) -> str:
        return f"{self.collection}/{self.point_id}"

    @property
    def key(self) -> bytes:
        """Its text as bytes, which no other place has."""
        return str(self).encode("utf-8", "surrogatepass")

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The place that was written as this text; None for any other text.

        Half a surrogate pair and NUL are in no name of a collection, and Postgres takes neither.
        """
        collection, slash, point_id = text.rpartition("/")
        try:
            collection.encode()
            return cls(collection, point_id_of(point_id)) if slash and "\0" not in text else None
        except ValueError:
            return None


def ids_by_collection(places: Iterable[Place]) -> dict[str, list[PointId]]:
    """The ids of these points, by their collections, in the order given."""
    ids: dict[str, list[PointId]] = {}
    for each in places:
        ids.setdefault(each.collection, []).append(each.point_id)
    return ids


@dataclass(frozen=True, slots=True)
class Speakers:
    """How the app's texts call the two who speak, by the names that they have now."""

    persona: str
    personality: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A point that a query found. `score` is the cosine similarity; 1 is the same direction."""

    point: Point
    score: float


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """A memory, decoded from the payload of its point. Absent fields are None.

    `user_text` and `assistant_text` are what was said. A memory that the app or an earlier build
    wrote has one text instead, `content`, which does not say where the user's words end.
    """

    persona_id: UUID | None
    personality_id: UUID | None
    channel_id: str | None
    created_at_ms: int | None
    user_text: str | None = None
    assistant_text: str | None = None
    content: str | None = None
    digest: str | None = None
    user_id: UUID | None = None

    @property
    def text(self) -> str | None:
        """The memory as one text, as the embedder reads it. For display only."""
        if self.user_text is None or self.assistant_text is None:
            return self.content
        return joined(self.user_text, self.assistant_text)


@dataclass(frozen=True, slots=True)
class Recollection:
    """A memory that `recall` found. `score` is its cosine similarity to the query.

    `text` is the memory as one text, as the embedder read it. `user_text` and `assistant_text` are
    what was said. Both are empty for a memory that the app or an earlier build wrote as one text,
    because nothing says where the user's words end. `created_at` is UTC, to the millisecond.
    """

    id: PointId
    score: float
    persona_id: PersonaId
    personality_id: UUID | None
    channel_id: str | None
    created_at: datetime | None
    text: str
    user_text: str = ""
    assistant_text: str = ""


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation: the messages of one persona with one personality in one channel."""

    channel_id: str
    personality_id: PersonalityId
    persona_id: PersonaId

    @classmethod
    def of(cls, message: Message) -> Self:
        """The thread that `message` belongs to."""
        return cls(message.channel_id, message.personality_id, message.persona_id)


_TURNS = {"user": 1, "assistant": 2}


def thread_order(created_at: datetime, role: str, message_id: UUID) -> tuple[datetime, int, bytes]:
    """The sort key for the messages of a thread, the same as in SQL.

    Of messages of one time the user's comes before the assistant's, because an app may write both
    with one time. Others come first, and equal roles go by id.
    """
    return created_at, _TURNS.get(role, 0), message_id.bytes


def exchanges(messages: Iterable[Message]) -> list[Exchange]:
    """Pair messages into exchanges, as the SQL fragment `exchange` does.

    Within a thread, in the order of `thread_order`, an assistant message forms an exchange with the
    message directly before it if that one is the user's. The result is ordered by anchor id.
    """
    before: dict[Thread, Message] = {}
    found = []
    for message in sorted(messages, key=lambda m: thread_order(m.created_at, m.role, m.id)):
        previous = before.get(Thread.of(message))
        before[Thread.of(message)] = message
        if message.role != "assistant" or previous is None or previous.role != "user":
            continue
        found.append(
            Exchange(
                anchor_id=message.id,
                persona_id=message.persona_id,
                personality_id=message.personality_id,
                channel_id=message.channel_id,
                created_at_ms=to_ms(message.created_at),
                user_text=previous.content,
                assistant_text=message.content,
                said_id=previous.id,
            )
        )
    return sorted(found, key=lambda each: each.anchor_id.bytes)
