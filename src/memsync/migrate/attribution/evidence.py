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
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from memsync.errors import MemsyncError
from memsync.migrate.attribution.points import COLUMNS, Counted, Reading, Row
from memsync.migrate.attribution.settings import fragments, places
from memsync.model.progress import Tell, silent
from memsync.model.sequences import batched
from memsync.settings import Settings
from memsync.stores.history.catalog import Catalog
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import CollectionKind
from memsync.stores.postgres import Session
from memsync.stores.postgres.ddl import OnlineDdl
from memsync.stores.vectors import VectorStore

SAMPLES_MAX = 10

_COPIED_POINTS = 5_000
_JOINED_POINTS = 500_000
"""How many points wait in a temporary table for a join, because each reads the whole history."""
_KEPT_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A message for which evidence and today's settings name different personas."""

    message_id: str
    persona_by_evidence: str
    persona_by_settings: str
    collection: str
    point_id: str


@dataclass(frozen=True, slots=True)
class ReadKind:
    """One kind of collection: how much of it was read, and how many of its points are of use.

    `matched` points resemble an exchange of their persona's owner; `contradicting` are those of
    them that name another persona than the settings. `unusable` points lack a persona,
    personality, time or text.
    """

    kind: str
    collections: int
    points: int
    unusable: int
    matched: int
    contradicting: int


@dataclass(frozen=True, slots=True)
class EvidenceReport:
    """How much evidence decides, as counts. `not_read` says why none was read, else it is None.

    `store` is the store that was read, `kinds` its collections of memories, `left_out` how many
    other collections it has. Exchanges: `ambiguous` (points of several personas of their user),
    `repeated` (times differ, and the same was said more than once meanwhile), `foreign` (only of
    other users' personas), `vanished` (only of personas that do not exist). Messages: `rows`, and
    of them `disagreeing`, for which the settings name another persona.
    """

    not_read: str | None = None
    store: str | None = None
    kinds: tuple[ReadKind, ...] = ()
    left_out: int = 0
    rows: int = 0
    ambiguous: int = 0
    repeated: int = 0
    foreign: int = 0
    vanished: int = 0
    disagreeing: int = 0
    samples: tuple[Disagreement, ...] = ()

    @property
    def points(self) -> int:
        """How many points were read."""
        return sum(each.points for each in self.kinds)

    @property
    def points_unusable(self) -> int:
        """How many of them say too little."""
        return sum(each.unusable for each in self.kinds)


@dataclass
class Evidence:
    """The evidence for the messages that nothing has decided yet, read on one session.

    With `decided_too` it is the evidence for every message, to compare with what they have.

    Its temporary tables end with that session, so it must be a dedicated one.
    """

    session: Session
    store: str | None = None
    counts: dict[CollectionKind, Counted] = field(default_factory=dict)
    left_out: int = 0
    decided_too: bool = False
    _tables: bool = False
    _waiting: int = 0
    _tolerance: timedelta = timedelta()

    @property
    def as_fragment(self) -> Mapping[str, str]:
        """The fragment for the hole {by_evidence}; none when nothing was read."""
        return {"by_evidence": "by_evidence_read"} if self._tables else {}

    @property
    def points(self) -> int:
        """How many points were read."""
        return sum(each.points for each in self.counts.values())

    def read(self, vectors: VectorStore, settings: Settings, tell: Tell = silent) -> None:
        """Read all points and find the exchanges that they were made from.

        Raises: the vector store's error as `required` words it, before anything is changed.
        """
        self.store = vectors.label
        self._tolerance = timedelta(seconds=settings.match_tolerance_s)
        reading = Reading(LongTermMemory(vectors, settings), tell)
        self.counts = reading.counts
        for some in batched(_required(reading.rows()), _COPIED_POINTS):
            if not self._tables:
                self._make_tables()
            self.session.copy_rows("memsync_points", COLUMNS, some)
            self._waiting += len(some)
            if self._waiting >= _JOINED_POINTS:
                self._match()
        if self._waiting:
            self._match()
        self.left_out = reading.left_out
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
        fitting = "open_all" if self.decided_too else fragments(Catalog.read(self.session))["open"]
        still_open = {"open": fitting}
        with self._in_one_pass():
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

    def counted(self) -> EvidenceReport:
        """The facts of the reading, without what it decides."""
        return EvidenceReport(store=self.store, kinds=self._kinds({}), left_out=self.left_out)

    def report(self) -> EvidenceReport:
        """Count what was found, and where today's settings name another persona."""
        if not self._tables:
            return self.counted()
        settings = places(Catalog.read(self.session).settings)
        verdicts = {row.verdict: row.exchanges for row in self.session.rows("evidence_verdicts")}
        against = self.session.rows_with(settings, "evidence_against_settings", limit=SAMPLES_MAX)
        by_kind = {row.kind: row for row in self.session.rows_with(settings, "evidence_by_kind")}
        return EvidenceReport(
            store=self.store,
            kinds=self._kinds(by_kind),
            left_out=self.left_out,
            rows=self.session.row("evidence_rows").total,
            ambiguous=verdicts.get("ambiguous", 0),
            repeated=verdicts.get("repeated", 0),
            foreign=verdicts.get("foreign", 0),
            vanished=verdicts.get("vanished", 0),
            disagreeing=against[0].total if against else 0,
            samples=tuple(map(_disagreement, against)),
        )

    def against_rows(self, *, limit: int) -> list[Any]:
        """The first messages that have another persona than evidence says, and how many."""
        return self.session.rows("evidence_against_rows", limit=limit) if self._tables else []

    def _kinds(self, by_kind: Mapping[str, Any]) -> tuple[ReadKind, ...]:
        return tuple(
            ReadKind(
                kind=kind.value,
                collections=counted.collections,
                points=counted.points,
                unusable=counted.unusable,
                matched=by_kind[kind].matched if kind in by_kind else 0,
                contradicting=by_kind[kind].contradicting if kind in by_kind else 0,
            )
            for kind, counted in sorted(self.counts.items())
        )

    def _match(self) -> None:
        self.session.run("analyze_points")
        threads = {"same_speaker": "same_user"}
        with self._in_one_pass():
            self.session.run_with(threads, "match_points")
            if self._tolerance:
                slot = 2 * self._tolerance + timedelta(seconds=1)
                self.session.run_with(
                    threads, "match_skewed_points", tolerance=self._tolerance, slot=slot
                )
        self.session.run("forget_points")
        self._waiting = 0

    def _make_tables(self) -> None:
        self.session.run("make_points")
        self.session.run("make_matches")
        self.session.run("make_verdicts")
        self.session.run("make_evidence")
        self._tables = True

    @contextlib.contextmanager
    def _in_one_pass(self) -> Iterator[None]:
        """Open a transaction for a statement that reads the whole history."""
        with self.session.transaction():
            self.session.run("join_in_one_pass")
            yield


def required(error: MemsyncError) -> MemsyncError:
    """The same error, for a run that cannot go on without the memories."""
    return type(error)(
        f"the memories cannot be read, and they are evidence of who spoke: {error.message}. "
        "Nothing was changed. Mend it, or run with `--evidence ignore` to go by the settings alone",
        **error.fields,
    )


def _required(rows: Iterator[Row]) -> Iterator[Row]:
    """The same rows; an error while they are read is one that `required` words."""
    try:
        yield from rows
    except MemsyncError as error:
        raise required(error) from error


def _disagreement(row: Any) -> Disagreement:
    collection, _, point_id = row.source.rpartition("/")
    return Disagreement(
        message_id=str(row.history_id),
        persona_by_evidence=str(row.by_evidence),
        persona_by_settings=str(row.by_settings),
        collection=collection,
        point_id=point_id,
    )
