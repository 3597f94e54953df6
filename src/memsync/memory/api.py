"""Memory: the library that retrieval code calls.

Decides what a caller must say: a persona, always, by keyword, as a validated id. Reading takes no
free filter, so no call can name somebody else's memories by mistake. Writing is rows and outbox
entry in one transaction; the relay does the rest.
"""

import contextlib
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Self, overload
from uuid import UUID, uuid4

from memsync.errors import InvalidInput, MemsyncError, SchemaMismatch
from memsync.model import ids
from memsync.model.ids import MessageId, PersonaId
from memsync.model.records import Memory as Record
from memsync.model.records import Message, UserMessage, storable_text
from memsync.settings import Settings
from memsync.stores.history.catalog import Catalog
from memsync.stores.ltm import Projector, load_embedder
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.open import open_postgres
from memsync.stores.vectors import open_vectors

LIMIT_MAX = 1000


class _Unsaid(Enum):
    """Tells an argument that was left out from None, which is a mistake."""

    UNSAID = 0


_UNSAID = _Unsaid.UNSAID
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class NewExchange:
    """What was said and answered, for `Memory.remember`.

    `said_at` and `answered_at` are for imports, both or neither: aware, or naive in UTC; kept to
    the millisecond. Without them the database's clock is used.
    """

    channel_id: str
    personality_id: UUID | str
    persona_id: UUID | str
    user_text: str
    assistant_text: str
    said_at: datetime | None = None
    answered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """The ids of the rows written. The memory's point will have the assistant message's id."""

    user_message_id: MessageId
    assistant_message_id: MessageId


@dataclass(frozen=True, slots=True)
class Recollection:
    """A memory that `recall` found, and its cosine similarity to the query."""

    id: UUID | int
    memory: Record
    score: float


class Memory:
    """Both stores of one app. Open it once, share it between threads, close it at the end."""

    def __init__(
        self, postgres: Postgres, settings: Settings, projector: Projector | None = None
    ) -> None:
        """Use stores that are open already; `open` is the usual way."""
        self._postgres = postgres
        self._settings = settings
        self._closing = contextlib.ExitStack()
        self._opening = threading.Lock()
        self._projector = projector
        self._knows_personas = False

    @classmethod
    def open(cls, settings: Settings | None = None) -> Self:
        """Open both stores; Qdrant and the embedder only when something is recalled.

        Raises: StoreUnreachable, StoreBusy, SettingsError.
        """
        settings = settings or Settings.load()
        return cls(open_postgres(settings), settings)

    def remember(self, exchange: NewExchange) -> Remembered:
        """Write the exchange's two messages and the intent to make its memory, all or nothing.

        Raises: InvalidInput for ids, times or texts that cannot be stored, and for a persona or
        personality that does not exist. Effects: Postgres; Qdrant follows with `sync run`.
        """
        channel_id = ids.channel_id(exchange.channel_id)
        personality_id = ids.personality_id(exchange.personality_id)
        persona_id = ids.persona_id(exchange.persona_id)
        texts = {
            "user": storable_text(exchange.user_text, "user_text"),
            "assistant": storable_text(exchange.assistant_text, "assistant_text"),
        }
        given = _given_times(exchange)
        # In order, so that the pair stands in order even at the same moment.
        user_id, assistant_id = sorted((uuid4(), uuid4()), key=lambda each: each.bytes)
        thread = {
            "channel_id": channel_id,
            "personality_id": personality_id,
            "persona_id": persona_id,
        }
        with self._postgres.session() as session, session.transaction():
            session.row("lock_thread", thread=f"{channel_id}/{personality_id}/{persona_id}")
            said_at, answered_at = given or _clock(session, thread)
            for message_id, role, moment in (
                (user_id, "user", said_at),
                (assistant_id, "assistant", answered_at),
            ):
                session.run(
                    "insert_message",
                    id=message_id,
                    role=role,
                    content=texts[role],
                    created_at=moment,
                    **thread,
                )
            written = [user_id, assistant_id]
            # A backdated exchange changes which message stands before a later reply.
            followers = [row.id for row in session.rows("next_anchors", ids=written)]
            session.run("enqueue", ids=list({assistant_id, *followers}))
        return Remembered(MessageId(user_id), MessageId(assistant_id))

    @overload
    def get_recent_history(
        self,
        channel_id: str,
        personality_id: UUID | str,
        *,
        persona_id: UUID | str,
        limit: int = 20,
    ) -> list[Message]: ...

    @overload
    def get_recent_history(
        self,
        channel_id: str,
        personality_id: UUID | str,
        *,
        user_id: UUID | str,
        limit: int = 20,
    ) -> list[UserMessage]: ...

    def get_recent_history(
        self,
        channel_id: str,
        personality_id: UUID | str,
        *,
        persona_id: UUID | str | _Unsaid = _UNSAID,
        user_id: UUID | str | _Unsaid = _UNSAID,
        limit: int = 20,
    ) -> list[Message] | list[UserMessage]:
        """The newest `limit` messages of one thread, oldest first; ties go by id.

        A thread is one persona's. `user_id` instead reads one user's, for as long as the history
        is not migrated: it works up to contract, `persona_id` from backfill on.

        Raises: TypeError unless exactly one of the two is given; InvalidInput for malformed ids or
        a limit outside 1 to 1000; SchemaMismatch for a persona before backfill, and for a user
        after contract.
        """
        if (persona_id is _UNSAID) is (user_id is _UNSAID):
            raise TypeError("get_recent_history() takes persona_id, or user_id before contract")
        channel = ids.channel_id(channel_id)
        personality = ids.personality_id(personality_id)
        thread = {"channel_id": channel, "personality_id": personality, "limit": _limit(limit)}
        with self._postgres.session() as session:
            if user_id is not _UNSAID:
                user = ids.user_id(user_id)
                rows = _rows_of_user(session, user_id=user, **thread)
                return [
                    UserMessage(MessageId(row.id), channel, personality, user, *_said(row))
                    for row in reversed(rows)
                ]
            persona = ids.persona_id(persona_id)
            self._require_personas(session)
            rows = session.rows("recent_history", persona_id=persona, **thread)
            return [
                Message(MessageId(row.id), channel, personality, persona, *_said(row))
                for row in reversed(rows)
            ]

    def recall(
        self,
        query: str,
        *,
        persona_id: UUID | str,
        personality_id: UUID | str | None = None,
        limit: int = 10,
        score_threshold: float | None = None,
    ) -> list[Recollection]:
        """The persona's memories most like `query`, best first.

        Raises: InvalidInput for malformed ids, text or limit; StoreUnreachable. Effects: the
        collection and its indexes are made if they are missing.
        """
        persona = ids.persona_id(persona_id)
        projector = self._ltm()
        codec = projector.codec
        where = {codec.key("persona_id"): str(persona)}
        if personality_id is not None:
            where[codec.key("personality_id")] = str(ids.personality_id(personality_id))
        hits = projector.vectors.query(
            projector.collection,
            projector.embedder.query(storable_text(query, "query")),
            where=where,
            limit=_limit(limit),
            score_threshold=score_threshold,
        )
        found = [
            Recollection(hit.point.id, codec.decode(hit.point.payload).memory, hit.score)
            for hit in hits
        ]
        _require_own(found, persona)
        return found

    def _require_personas(self, session: Session) -> None:
        """Refuse to read by persona while messages have none: the thread would have holes."""
        if self._knows_personas:
            return
        catalog = Catalog.read(session, notes=False)
        if not catalog.knows_personas:
            raise SchemaMismatch(
                f"the history is {catalog.stage}: not every message has a persona yet. Read by "
                "user_id until `memsync migrate run --to backfill` is done"
            )
        # Once so, it stays so: the way back keeps every persona for as long as the column stands.
        self._knows_personas = True

    def _ltm(self) -> Projector:
        """Qdrant and the embedder, opened by the first thread that needs them."""
        with self._opening:
            if self._projector is None:
                vectors = contextlib.closing(open_vectors(self._settings))
                projector = Projector(
                    self._closing.enter_context(vectors),
                    self._settings,
                    load_embedder(self._settings.embedder),
                )
                self._projector = projector
            self._projector.prepare()
            return self._projector

    def close(self) -> None:
        """Let go of both stores."""
        self._closing.close()
        self._postgres.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _rows_of_user(session: Session, **thread: object) -> list[Any]:
    try:
        # The app's, so that contract sees who still reads by user.
        return session.rows_for_app("recent_history_of_user", **thread)
    except SchemaMismatch as error:
        raise SchemaMismatch(
            f"{session.label}: the history has no user_id since contract; read by persona_id"
        ) from error


def _said(row: Any) -> tuple[Any, str, datetime]:
    return row.role, row.content, row.created_at.replace(tzinfo=UTC)


def _limit(limit: int) -> int:
    if type(limit) is not int or not 1 <= limit <= LIMIT_MAX:
        raise InvalidInput(f"limit must be 1 to {LIMIT_MAX}, not {limit!r:.40}", field="limit")
    return limit


def _given_times(exchange: NewExchange) -> tuple[datetime, datetime] | None:
    given = exchange.said_at, exchange.answered_at
    if given[0] is None and given[1] is None:
        return None
    if given[0] is None or given[1] is None:
        raise InvalidInput("give both said_at and answered_at, or neither", field="said_at")
    said_at, answered_at = (_utc_ms(each) for each in given if each is not None)
    if answered_at < said_at:
        raise InvalidInput(
            f"answered_at {answered_at} is before said_at {said_at}; a reply follows its message",
            field="answered_at",
        )
    return said_at, answered_at


def _utc_ms(moment: datetime) -> datetime:
    """To the naive UTC milliseconds that the column holds."""
    try:
        naive = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except OverflowError:
        raise InvalidInput(f"{moment} is outside the years 1 to 9999 in UTC") from None
    return naive.replace(microsecond=naive.microsecond // 1000 * 1000)


def _clock(session: Session, thread: dict[str, object]) -> tuple[datetime, datetime]:
    moment = session.row("thread_clock", **thread).moment
    return moment, moment + _MS


def _require_own(found: list[Recollection], persona: PersonaId) -> None:
    """Refuse to hand out what the store should never have returned."""
    foreign = [each.id for each in found if each.memory.persona_id != persona]
    if foreign:
        raise MemsyncError(
            f"Qdrant returned memories of another persona than {persona}: {foreign[:3]}. They were "
            "not handed out; run `memsync check`"
        )
