"""Finds evidence of which persona spoke then: the memories that were made from the old exchanges.

Settings only say which persona would speak now. This module decides which points are evidence, and
for which messages. It never guesses: if points of several personas of one user agree with one
exchange, none of them counts. A point of another user's persona never counts. The vector store is
only read. The points and the verdicts are kept in temporary tables of one session. Only `keep`
writes, into `memsync.row_archive`, which fill, sync trigger and proof prefer to the map. The
decisions of an earlier run stand, with evidence or without.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from memsync.errors import InvalidInput, MemsyncError
from memsync.migrate.attribution.settings import fragments, places
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.records import Point, from_ms, storable_text
from memsync.model.sequences import batched
from memsync.settings import Settings
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.phases import Phase
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import (
    is_deployed,
    persona_of_collection,
    personality_of_collection,
)
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.ddl import OnlineDdl
from memsync.stores.postgres.locks import LockKey, require_free
from memsync.stores.vectors import VectorStore, open_standing

SAMPLES_MAX = 10

_COPIED_POINTS = 5_000
_JOINED_POINTS = 500_000
"""How many points wait in a temporary table for a join, because each reads the whole history."""
_KEPT_ROWS = 2_000

_COLUMNS = (
    *("earliest", "latest", "personality_id", "persona_id"),
    *("user_text", "assistant_text", "content", "source"),
)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A message for which evidence and today's settings name different personas."""

    message_id: str
    persona_by_evidence: str
    persona_by_settings: str
    collection: str
    point_id: str


@dataclass(frozen=True, slots=True)
class EvidenceReport:
    """How much evidence decides, as counts. `not_read` says why none was read, else it is None.

    Points: `points`, and of them `points_unusable`, which lack a persona, personality, time or
    text. Exchanges: `ambiguous` (points of several personas of their user), `foreign` (only of
    other users' personas), `vanished` (only of personas that do not exist). Messages: `rows`, and
    of them `disagreeing`, for which the settings name another persona.
    """

    not_read: str | None = None
    points: int = 0
    points_unusable: int = 0
    rows: int = 0
    ambiguous: int = 0
    foreign: int = 0
    vanished: int = 0
    disagreeing: int = 0
    samples: tuple[Disagreement, ...] = ()


@dataclass
class Evidence:
    """The evidence for the messages that nothing has decided yet, read on one session.

    Its temporary tables end with that session, so it must be a dedicated one.
    """

    session: Session
    points: int = 0
    unusable: int = 0
    _tables: bool = False
    _waiting: int = 0

    @property
    def as_fragment(self) -> Mapping[str, str]:
        """The fragment for the hole {by_evidence}; none when nothing was read."""
        return {"by_evidence": "by_evidence_read"} if self._tables else {}

    def read(self, vectors: VectorStore, settings: Settings, tell: Tell = silent) -> None:
        """Read all points and find the exchanges that they were made from.

        Raises: the vector store's error as `required` words it, before anything is changed.
        """
        rows = self._rows(vectors, settings, tell)
        for some in batched(rows, _COPIED_POINTS):
            if not self._tables:
                self._make_tables()
            self.session.copy_rows("memsync_points", _COLUMNS, some)
            self._waiting += len(some)
            if self._waiting >= _JOINED_POINTS:
                self._match()
        if self._waiting:
            self._match()
        self.judge()

    def drop(self) -> None:
        """Forget what was read, because only a part of the points is no evidence."""
        self._tables = False

    def judge(self) -> None:
        """Judge the points anew, because personas and their owners may have changed."""
        if not self._tables:
            return
        self.session.run("forget_verdicts")
        self.session.run("judge_matches")
        self.session.run("analyze_verdicts")
        with self._open_messages() as still_open:
            self.session.run_with(still_open, "list_evidence")
        self.session.run("analyze_evidence")

    def keep(self, ddl: OnlineDdl) -> None:
        """Write the decisions, for messages that nothing else has decided by now. Safe to repeat.

        Raises: StoreBusy.
        """
        if not self._tables:
            return
        self.judge()
        total = self.session.row("evidence_rows").total
        for start in range(1, total + 1, _KEPT_ROWS):
            keep = partial(self.session.run, "keep_evidence", start=start, stop=start + _KEPT_ROWS)
            ddl.do(keep, table="memsync.row_archive")

    def report(self) -> EvidenceReport:
        """Count what was found, and where today's settings name another persona."""
        if not self._tables:
            return EvidenceReport(points=self.points, points_unusable=self.unusable)
        settings = places(Catalog.read(self.session).settings)
        verdicts = {row.verdict: row.exchanges for row in self.session.rows("evidence_verdicts")}
        against = self.session.rows_with(settings, "evidence_against_settings", limit=SAMPLES_MAX)
        return EvidenceReport(
            points=self.points,
            points_unusable=self.unusable,
            rows=self.session.row("evidence_rows").total,
            ambiguous=verdicts.get("ambiguous", 0),
            foreign=verdicts.get("foreign", 0),
            vanished=verdicts.get("vanished", 0),
            disagreeing=against[0].total if against else 0,
            samples=tuple(map(_disagreement, against)),
        )

    def _rows(
        self, vectors: VectorStore, settings: Settings, tell: Tell
    ) -> Iterator[tuple[object, ...]]:
        """Every point with a persona, personality, time and text, as a row of memsync_points."""
        ltm = LongTermMemory(vectors, settings)
        try:
            names = [
                name for name in ltm.collections() if name == ltm.collection or is_deployed(name)
            ]
            for number, name in enumerate(names, start=1):
                reader = _Reader(
                    name,
                    ltm.codec_of(name),
                    persona_of_collection(name),
                    personality_of_collection(name),
                )
                for point in ltm.scan(name):
                    self.points += 1
                    row = reader.row(point)
                    if row is None:
                        self.unusable += 1
                    else:
                        yield row
                tell(Progress(Kind.STEP, "read evidence", number, len(names)))
        except MemsyncError as error:
            raise required(error) from error

    def _match(self) -> None:
        self.session.run("analyze_points")
        with self._open_messages() as still_open:
            self.session.run_with(still_open | {"same_speaker": "same_user"}, "match_points")
        self.session.run("forget_points")
        self._waiting = 0

    def _make_tables(self) -> None:
        self.session.run("make_points")
        self.session.run("make_matches")
        self.session.run("make_verdicts")
        self.session.run("make_evidence")
        self._tables = True

    @contextlib.contextmanager
    def _open_messages(self) -> Iterator[dict[str, str]]:
        """Open a transaction for a statement on the undecided messages; give their fragment."""
        still_open = {"open": fragments(Catalog.read(self.session))["open"]}
        with self.session.transaction():
            self.session.run("join_in_one_pass")
            yield still_open


def awaited(catalog: Catalog) -> bool:
    """Whether there may be messages left for evidence to decide."""
    return Phase.BACKFILL not in catalog.done


@contextlib.contextmanager
def memories_of(postgres: Postgres, settings: Settings) -> Iterator[VectorStore | None]:
    """The vector store, for a run that will read evidence; None when none is needed or there.

    Raises: the store's error as `required` words it; StoreBusy while another run holds the lock.
    """
    with contextlib.ExitStack() as opened:
        vectors = None
        with postgres.session() as session:
            due = awaited(Catalog.read(session))
            # Look first: a run keeps embedded memories open, and its lock is the better message.
            require_free(session, LockKey.MIGRATE, "migration")
        if due:
            try:
                vectors = open_standing(settings)
            except MemsyncError as error:
                raise required(error) from error
        if vectors is not None:
            opened.callback(vectors.close)
        yield vectors


def required(error: MemsyncError) -> MemsyncError:
    """The same error, for a run that cannot go on without the memories."""
    return type(error)(
        f"the memories cannot be read, and they are evidence of who spoke: {error.message}. "
        "Nothing was changed. Mend it, or run with `--evidence ignore` to go by the settings alone",
        **error.fields,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the points of one collection, whose name may give their persona or personality."""

    collection: str
    codec: PayloadCodec
    persona_id: UUID | None
    personality_id: UUID | None

    def row(self, point: Point) -> tuple[object, ...] | None:
        """The point as a row of memsync_points; None when a value is missing or contradictory."""
        reading = self.codec.decode(point.payload)
        memory, window = reading.memory, reading.time_window_ms
        persona = _agreed(self.persona_id, memory.persona_id)
        personality = _agreed(self.personality_id, memory.personality_id)
        if window is None or persona is None or personality is None:
            return None
        if reading.names_several_personas:
            return None
        try:
            # What is not text, or Postgres cannot store, is in no message.
            storable_text(memory.text, "text")
        except InvalidInput:
            return None
        first, last = (from_ms(ms).replace(tzinfo=None) for ms in window)
        texts = (memory.user_text, memory.assistant_text)
        if None in texts:
            texts = (None, None)
        source = f"{self.collection}/{point.id}"
        return first, last, personality, persona, *texts, memory.content, source


def _agreed(of_collection: UUID | None, of_payload: UUID | None) -> UUID | None:
    """The id that both give, or the only one given; None where they contradict each other."""
    if of_collection and of_payload and of_collection != of_payload:
        return None
    return of_collection or of_payload


def _disagreement(row: Any) -> Disagreement:
    collection, _, point_id = row.source.rpartition("/")
    return Disagreement(
        message_id=str(row.history_id),
        persona_by_evidence=str(row.by_evidence),
        persona_by_settings=str(row.by_settings),
        collection=collection,
        point_id=point_id,
    )
