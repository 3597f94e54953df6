"""Memory: the library that an app calls to read and write short-term and long-term memory.

It decides which arguments a caller must give: always the persona, by keyword, as a valid id. No
read takes a free filter, so no call can reach another persona's memories by mistake. A write puts
two rows and their outbox entries into Postgres in one transaction; the relay writes the memory
later.
"""

import logging
import weakref
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from typing import Self, overload
from uuid import UUID, uuid4

from memsync import reconcile
from memsync.errors import InvalidInput, SchemaMismatch, SettingsError
from memsync.memory import beginning
from memsync.memory.arguments import (
    checked_limit,
    checked_threshold,
    checked_timeout,
    given_times,
)
from memsync.memory.flush import flush
from memsync.memory.follow import END_S, POLL_S, Follower
from memsync.memory.stores import Stores
from memsync.model import ids
from memsync.model.ids import MessageId
from memsync.model.records import (
    Message,
    Recollection,
    Role,
    Thread,
    UserMessage,
    storable_text,
)
from memsync.reconcile import Audit
from memsync.settings import Settings
from memsync.stores.history import outbox
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.exchanges import (
    first_gap,
    insert_message,
    lock_thread,
    recent_history,
    recent_history_of_user,
    standing_messages,
    thread_clock,
)
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.writer import why_app_writes
from memsync.stores.postgres import Postgres, Session, open_postgres


class _Unsaid(Enum):
    """The default of an argument that may be left out. None is an error for such an argument."""

    UNSAID = 0


_UNSAID = _Unsaid.UNSAID
_LOG = logging.getLogger(__name__)
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class NewExchange:
    """A user's message and its reply, for `Memory.remember`.

    `said_at` and `answered_at` are for imports; give both or neither. A naive time is UTC. Both
    are cut to the millisecond, and `remember` may move them by what it takes to keep the exchange
    whole. Without them the database's clock is used.

    `key` is an id of the caller's own, such as the chat platform's for the message: a uuid, or text
    of 1 to 255 characters, unique in its thread. A uuid and its text are one key. An exchange that
    is remembered again with its key is written once.
    """

    channel_id: str
    personality_id: UUID | str
    persona_id: UUID | str
    user_text: str
    assistant_text: str
    said_at: datetime | None = None
    answered_at: datetime | None = None
    key: UUID | str | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """The ids of the rows written. The memory's point gets the id of the assistant message."""

    user_message_id: MessageId
    assistant_message_id: MessageId


class Memory:
    """Both stores of one app. Open it once, share it between threads, close it at the end."""

    def __init__(
        self, postgres: Postgres, settings: Settings, ltm: LongTermMemory | None = None
    ) -> None:
        """Use stores that are already open; most callers use `Memory.open` instead."""
        self._postgres = postgres
        self._settings = settings
        stores = self._stores = Stores(postgres, settings, ltm)
        self._relay = Follower(lambda: stores, every_s=POLL_S) if settings.drains else None
        self._knows_personas = False
        if self._relay:
            # The thread knows the stores and not this object, so it ends with a Memory that was
            # dropped. At the end of the process it finishes its batch, which takes longer.
            weakref.finalize(self, self._relay.end).atexit = False

    @classmethod
    def open(cls, settings: Settings | None = None) -> Self:
        """Open Postgres now. Qdrant and the embedder are opened by the first call that needs them.

        With an embedded vector store this process drains the outbox itself, in a thread that the
        first `remember`, `recall` or `flush` starts; the setting `drain` decides.

        Raises: StoreUnreachable, StoreBusy, SettingsError.
        """
        settings = settings or Settings.load()
        # A forgotten folder is told now, and not by a thread later.
        LongTermMemory.require_folder(settings)
        return cls(open_postgres(settings, for_app=True), settings)

    def remember(self, exchange: NewExchange) -> Remembered:
        """Write the exchange's two messages and its outbox entry in one transaction.

        An exchange is placed whole, by `said_at`: after all that was said in its thread up to that
        time, before all that was said later, and never inside another exchange. Where the given
        times do not fit there, the fewest milliseconds are added to `said_at` until it has a place
        (100 exchanges of one second stay in the order of the calls), and `answered_at` is moved
        before the next message, or to `said_at`. So an import may come in any order, and between
        exchanges that stand.

        With a `key`, a call may be repeated until it returns, because after StoreUnreachable nobody
        knows whether the exchange was written. Where one of its messages stands, nothing is written
        and the same ids are returned; what stands stays, even if this call's texts or times differ.

        Raises: InvalidInput for ids, times or texts that cannot be stored, and for a persona or
        personality that does not exist; SettingsError where the app itself writes memories (layout
        per-persona, writer app). Effects: Postgres; the relay writes to Qdrant later.
        """
        channel_id = ids.channel_id(exchange.channel_id)
        personality_id = ids.personality_id(exchange.personality_id)
        persona_id = ids.persona_id(exchange.persona_id)
        user_text = storable_text(exchange.user_text, "user_text")
        assistant_text = storable_text(exchange.assistant_text, "assistant_text")
        given = given_times((exchange.said_at, exchange.answered_at))
        place = (channel_id, personality_id, persona_id)
        thread = Thread(*place)
        key = None if exchange.key is None else ids.exchange_key(exchange.key)
        self._require_writer()
        user_id, assistant_id = (
            _message_id(thread, key, "user"),
            _message_id(thread, key, "assistant"),
        )

        def write(session: Session) -> Remembered:
            with session.transaction():
                # The thread's lock also keeps out a call with the same key.
                lock_thread(session, thread)
                if key is not None and standing_messages(session, [user_id, assistant_id]):
                    return Remembered(user_id, assistant_id)
                said_at, answered_at = (
                    _placed(session, thread, *given) if given else _clock(session, thread)
                )
                insert_message(session, Message(user_id, *place, "user", user_text, said_at))
                insert_message(
                    session, Message(assistant_id, *place, "assistant", assistant_text, answered_at)
                )
                outbox.enqueue(session, [assistant_id])
            return Remembered(user_id, assistant_id)

        written = self._postgres.call(write, repeatable=key is not None)
        self._wake()
        return written

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
        """The newest `limit` messages of one thread, oldest first.

        Of messages of one time the user's comes before the assistant's; other ties go by id.

        A thread belongs to one persona. While the history is not migrated, `user_id` can be given
        instead: `user_id` works until contract, `persona_id` from backfill on.

        Raises: InvalidInput for malformed ids, for a limit outside 1 to 1000, and unless exactly
        one of the two is given; SchemaMismatch for a persona before backfill, and for a user after
        contract.
        """
        if (persona_id is _UNSAID) is (user_id is _UNSAID):
            raise InvalidInput(
                "get_recent_history takes exactly one of persona_id and, before contract, user_id: "
                f"{'neither' if persona_id is _UNSAID else 'both'} came. Give one by keyword",
                field="persona_id",
            )
        channel = ids.channel_id(channel_id)
        personality = ids.personality_id(personality_id)
        newest = checked_limit(limit)
        if user_id is not _UNSAID:
            of_user = partial(
                recent_history_of_user,
                channel_id=channel,
                personality_id=personality,
                user_id=ids.user_id(user_id),
                limit=newest,
            )
            return self._postgres.call(of_user, repeatable=True)
        thread = Thread(channel, personality, ids.persona_id(persona_id))

        def read(session: Session) -> list[Message]:
            self._require_personas(session)
            return recent_history(session, thread, newest)

        return self._postgres.call(read, repeatable=True)

    def recall(
        self,
        query: str,
        *,
        persona_id: UUID | str,
        personality_id: UUID | str | None = None,
        limit: int = 10,
        score_threshold: float | None = None,
    ) -> list[Recollection]:
        """The persona's memories most like `query`, best first; none if there is no collection.

        A point that names another persona as well, or another one, or has no text, is left out.
        The log warns of it with its id, and the next memories take its place.

        Raises: InvalidInput for malformed ids, text, limit or threshold; SettingsError for an
        unknown embedder; DimensionMismatch when the collection was made for another one;
        SchemaMismatch when it was not made for memories; StoreBusy when another process has an
        embedded one open; StoreUnreachable.
        """
        persona = ids.persona_id(persona_id)
        personality = None if personality_id is None else ids.personality_id(personality_id)
        text, nearest = storable_text(query, "query"), checked_limit(limit)
        self._wake()
        return self._stores.ltm().recall(
            text,
            persona_id=persona,
            personality_id=personality,
            limit=nearest,
            score_threshold=checked_threshold(score_threshold),
        )

    def add_persona(self, name: str, *, owner_id: UUID | str | None = None) -> UUID:
        """Add a persona of the user `owner_id`; without one, a new user is made with it.

        For an app that begins with `memsync init`. Raises: InvalidInput for a name that cannot be
        stored, and for an owner who does not exist. Effects: Postgres.
        """
        return beginning.add_persona(self._postgres, name, owner_id)

    def add_personality(self, name: str) -> UUID:
        """Add a personality, the character that answers. Raises: InvalidInput. Effects: Postgres.

        For an app that begins with `memsync init`.
        """
        return beginning.add_personality(self._postgres, name)

    def _require_writer(self) -> None:
        """Refuse to queue memories where the app itself writes them. Qdrant may be down."""
        if self._settings.writer == "memsync":
            return
        # Where the layout is not known yet, the relay decides later.
        if why := why_app_writes(self._stores.layout(), self._settings):
            raise SettingsError(f"nothing is remembered: {why}", field="writer")

    def _require_personas(self, session: Session) -> None:
        """Refuse to read by persona while some messages have none: they would be missing."""
        if self._knows_personas:
            return
        catalog = Catalog.read(session, notes=False)
        if not catalog.knows_personas:
            raise SchemaMismatch(
                f"the history is {catalog.stage}: not every message has a persona yet. Read by "
                "user_id until `memsync migrate run --to backfill` is done"
            )
        # This stays true, because a rollback keeps every persona as long as the column exists.
        self._knows_personas = True

    def flush(self, *, timeout_s: float = 30.0) -> None:
        """Wait until all that was remembered before this call can be recalled.

        Where this process drains the outbox, it begins at once; else the relay must be running.

        Raises: PartlyDone, which says what is left and why, for dead outbox entries, after
        `timeout_s` seconds, and for a failure that no waiting mends; InvalidInput;
        StoreUnreachable.
        """
        flush(self._postgres, self._relay, checked_timeout(timeout_s))

    def check(self) -> Audit:
        """Check schema, both stores and the outbox, as `memsync check` does. Writes nothing.

        It is for an embedded vector store, which no command can open beside this process. `ok` of
        the result says whether all is well and was read.

        Raises: StoreUnreachable, StoreBusy, SchemaMismatch, MissingRight, SettingsError.
        """
        return reconcile.check(self._stores.commands, self._stores.ltm(), self._settings)

    def _wake(self) -> None:
        if self._relay:
            self._relay.wake()

    def close(self) -> None:
        """Close Postgres, and Qdrant if this object opened it.

        The relay of this process finishes its batch first, for 10 seconds at most. Entries that it
        leaves stay in the outbox.
        """
        if self._relay:
            self._relay.end()
            if not self._relay.join(END_S):
                _LOG.warning(
                    "the relay is still in a batch after %g s, and is left; its entries stay in "
                    "the outbox",
                    END_S,
                )
        self._stores.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _message_id(thread: Thread, key: str | None, role: Role) -> MessageId:
    """A new id; with a key always the same one, so that the primary key holds one row for it."""
    if key is None:
        return MessageId(uuid4())
    return ids.keyed_message_id(
        thread.channel_id, str(thread.personality_id), str(thread.persona_id), key, role
    )


def _placed(
    session: Session, thread: Thread, said_at: datetime, answered_at: datetime
) -> tuple[datetime, datetime]:
    """The times at which an exchange of the given times has its place in the thread."""
    after, before = first_gap(session, thread, said_at)
    said = said_at if after is None else max(said_at, _later(after))
    answered = answered_at if before is None else min(answered_at, before - _MS)
    return said, max(said, answered)


def _clock(session: Session, thread: Thread) -> tuple[datetime, datetime]:
    """The times to give to a message and its reply that are written now, a millisecond apart."""
    moment = thread_clock(session, thread)
    return moment, _later(moment)


def _later(moment: datetime) -> datetime:
    """The next millisecond."""
    try:
        return moment + _MS
    except OverflowError:
        raise InvalidInput(
            f"no time is left after {moment}, a message of this thread. Give an earlier said_at, "
            "or correct the times of the thread",
            field="said_at",
        ) from None
