"""The mark tells whether both stores still belong to one time.

Postgres counts the batches of memories that it has settled, and the vector store gets the number
afterwards, in a small collection of memsync's own. So Postgres is never behind, unless it was
restored from a backup; and a store without the mark is another one, or was made anew. Postgres
catches up with each batch, so the next command that writes notes first that it was behind. This
module decides what the two numbers mean. The first mark gives the store an id, by which plans know
it. The statements are in marks.sql.
"""

import contextlib
import logging
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID, uuid4

from memsync.errors import InvalidInput, MemsyncError, SchemaMismatch, SettingsError
from memsync.model.records import Point
from memsync.stores.history.catalog import instance_id
from memsync.stores.postgres import Session, relations
from memsync.stores.vectors import VectorStore

META = "memsync-meta"
"""The collection of marks: a point for each database, under the database's id."""
_TABLE = "memsync.mark"
_SETTLED = "settled"
_STORE = "store"
_NO_VECTOR = (1.0,)

_log = logging.getLogger(__name__)


class Verdict(StrEnum):
    """What the marks of both stores say."""

    IN_STEP = "in step"
    """Nothing else is known."""
    REWOUND = "rewound"
    """Postgres is older than what was written to the vector store."""
    GONE = "gone"
    """The vector store has no mark any more."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The numbers of settled batches that Postgres and the vector store have; None: no mark.

    `store` is the id that the vector store got with its first mark. `is_set`: the vector store had
    the mark before. `was_rewound`: Postgres was seen to be behind, and nobody has accepted that
    yet. `are_of_a_standby`: Postgres is a copy that follows the database. `why_unread` is why the
    mark could not be looked at, so that nothing more is known; empty where it was.
    """

    here: int = 0
    there: int | None = None
    is_set: bool = False
    was_rewound: bool = False
    are_of_a_standby: bool = False
    store: str | None = None
    why_unread: str = ""

    @property
    def left_out(self) -> tuple[str, ...]:
        """The line that says why the mark was not looked at; empty where it was."""
        about = f"whether both stores are of one time: {self.why_unread}"
        return (about,) if self.why_unread else ()

    @property
    def verdict(self) -> Verdict:
        """What they say."""
        if self.was_rewound or (self.there is not None and self.there > self.here):
            return Verdict.REWOUND
        return Verdict.GONE if self.is_set and self.there is None else Verdict.IN_STEP


NO_MARKS = Marks(why_unread=f"Postgres has no table {_TABLE}, which `memsync migrate run` adds")
"""What is known where no mark is kept."""


def require_writes(vectors: VectorStore) -> None:
    """See that the store takes a write to the collection of marks: one that changes no point.

    A refusal of this key or of this write is an answer, too. Raises: StoreUnreachable.
    """
    with contextlib.suppress(InvalidInput, SchemaMismatch):
        vectors.create(META, len(_NO_VECTOR), {})
        vectors.overwrite_payloads(META, {uuid4(): {}})


class Mark:
    """The mark in one vector store. Where Postgres has no table for it, or the store shows none to
    this API key, nothing is known and nothing is marked.
    """

    def __init__(self, vectors: VectorStore) -> None:
        self._vectors = vectors
        self._is_kept = False

    def read(self, session: Session) -> Marks:
        """Both numbers. Writes nothing. Raises: StoreUnreachable.

        A standby of Postgres may be behind by nature, so there nothing is known.
        """
        if session.row("is_standby").yes:
            why = "Postgres is a standby, which may be behind the vector store"
            return Marks(are_of_a_standby=True, why_unread=why)
        if not self._is_known(session):
            return NO_MARKS
        # A relay may count and mark meanwhile. So what Postgres says of the store is asked before
        # the store, and how far Postgres has come, afterwards.
        before = session.row("mark_row")
        try:
            there, store = self._there(instance_id(session))
        except SettingsError:
            # What was seen before stays known.
            was_rewound = before is not None and before.rewound_at is not None
            why = f"the API key may not read the collection {META}"
            return Marks(was_rewound=was_rewound, why_unread=why)
        row = session.row("mark_row")
        if row is None:
            return Marks(there=there, store=store)
        is_set = before is not None and before.is_set
        return Marks(row.settled, there, is_set, row.rewound_at is not None, store=store)

    def is_of(self, session: Session) -> bool:
        """Whether the store has this database's mark, and the very number that Postgres has."""
        seen = self.read(session)
        return seen.there is not None and seen.there == seen.here and not seen.was_rewound

    def count(self, session: Session) -> None:
        """Count a batch, in the transaction that settles it. Effects: Postgres."""
        if self._is_known(session):
            session.run("count_batch")

    def watch(self, session: Session) -> None:
        """Note where Postgres is behind, before it catches up. Effects: Postgres."""
        seen = self.read(session)
        if seen.verdict is Verdict.REWOUND and not seen.was_rewound:
            session.run("note_rewound")

    def publish(self, session: Session) -> str | None:
        """Give the vector store Postgres' number, unless the two are out of step. Returns the id
        that the store has by its mark; None where none is known.

        It comes after the work, so a failure is a warning in the log: the next run marks the store.
        Effects: both stores.
        """
        try:
            seen = self.read(session)
            is_marked = seen.is_set and seen.here == seen.there
            if seen.here and not is_marked and seen.verdict is Verdict.IN_STEP:
                store = seen.store or str(uuid4())
                self._write(session, seen.here, store)
                return store
        except MemsyncError as error:
            _log.warning(
                "the mark in the collection %s was not written, and without it a restored store "
                "goes unnoticed: %s",
                META,
                error.message,
            )
            return None
        return seen.store

    def trust(self, session: Session) -> None:
        """Take both stores as they are from now on. Effects: both stores."""
        if self._is_known(session):
            settled = max(1, self.read(session).there or 0)
            session.run("trust_stores", settled=settled)
            self.publish(session)

    def store_of(self, instance: UUID) -> str | None:
        """The id that the store got with the first mark of this database; None where none is seen.

        Raises: StoreUnreachable.
        """
        return self.in_store(instance)[1]

    def in_store(self, instance: UUID) -> tuple[int | None, str | None]:
        """The number of this database's mark and that id. Raises: StoreUnreachable."""
        with contextlib.suppress(SettingsError):
            return self._there(instance)
        return None, None

    def _there(self, instance: UUID) -> tuple[int | None, str | None]:
        """The number and the store's id in the mark."""
        if self._vectors.describe(META) is None:
            return None, None
        for point in self._vectors.retrieve(META, [instance]):
            settled, store = point.payload.get(_SETTLED), point.payload.get(_STORE)
            number = settled if type(settled) is int else None
            return number, store if isinstance(store, str) else None
        return None, None

    def _write(self, session: Session, settled: int, store: str) -> None:
        payload = {_SETTLED: settled, _STORE: store}
        self._vectors.create(META, len(_NO_VECTOR), {})
        self._vectors.upsert(META, [Point(instance_id(session), payload, _NO_VECTOR)])
        session.run("note_marked")

    def _is_known(self, session: Session) -> bool:
        """Whether Postgres has a table for the mark; once it has, it keeps it."""
        self._is_kept = self._is_kept or bool(relations.existing(session, [_TABLE]))
        return self._is_kept
