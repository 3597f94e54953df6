"""What the adapters share: a small app in both stores, the audit that is asked, and snapshots."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import psycopg
from agmi.adapters.base import MemoryAdapter, Record
from psycopg import sql

from memsync import reconcile
from memsync.cli.formats.report import Report
from memsync.stores.ltm.layouts import Layout
from memsync.stores.vectors.protocol import scan
from support.lab import ADA, BASIL, EMPTY, A, B, C, Lab
from support.ledger import adopt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from memsync.model.records import Exchange, Point
    from memsync.reconcile.seen_vectors import Verify

DAY_MS = 86_400_000
TABLES = """SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname IN ('public', 'memsync') ORDER BY 1"""

Key = str
"""What names a record in its store: the id of a point, of an exchange, or of an entry."""


class Hand(StrEnum):
    """How careful the editor of a memory is."""

    WORDS = "words"
    """The text, and nothing else."""
    DIGEST = "digest"
    """The digest and its two numbers are made anew, too; the algorithm is public and has no key."""
    PAYLOAD = "payload"
    """The whole payload goes where the judge moves a text, but for the persona."""


@dataclass(frozen=True)
class Snapshot:
    """All that the stores hold. None: this store is not part of it."""

    tables: Mapping[str, bytes] | None
    points: Mapping[str, Sequence[Point]] | None


class Judged(MemoryAdapter):
    """One kind of record of memsync's stores, those of persona A, and the audit that judges them.

    `deep` is that of the audit. `field` is what a change to metadata changes. `archived`: the app
    no longer keeps the rows. `old`: what is forged is older than its thread. `other` is the persona
    of which a record is replayed. `both`: a snapshot is of both stores. `verify` names the vectors
    that the audit looks at.
    """

    name = "memsync"
    detection_point = "audit"
    supports_replay = supports_metadata = supports_snapshot = True
    in_postgres: bool

    def __init__(
        self,
        lab: Lab,
        *,
        deep: bool,
        field: str = "",
        archived: bool = False,
        old: bool = False,
        other: UUID = C,
        both: bool = False,
        verify: Verify | None = None,
    ) -> None:
        self.lab = lab
        self.deep, self.field, self.archived, self.old = deep, field, archived, old
        self.other, self.both, self.vectors = other, both, verify
        self._slots: dict[UUID, list[Key]] = {}

    # ------------------------------------------------------------------ the app

    def setup(self) -> None:
        """Empty both stores."""
        self.teardown()

    def teardown(self) -> None:
        """Empty both stores."""
        for name in self.lab.vectors.collections():
            self.lab.vectors.drop(name)
        self.lab.sql(EMPTY)
        self.lab.said.clear()
        self.lab.deployed.clear()
        self._slots.clear()
        self.reload()

    def seed(self, n: int) -> None:
        """Let the app talk as persona A, and memsync write its memories down."""
        # With an empty history beside memories an audit is incomplete. This is another thread.
        self._say(1, B, BASIL)
        self._talk(n, A)

    def seed_other(self, n: int) -> None:
        """The same as the other persona."""
        self._talk(n, self.other)

    def append_genuine(self) -> None:
        """One more exchange. Where the app writes memories, nobody has written it down yet."""
        self._say(1, A)

    def _talk(self, n: int, persona: UUID) -> None:
        said = self._say(n, persona)
        adopt(self.lab)
        if self.archived:
            self.lab.unsay(*said)
            adopt(self.lab)
        # The order is the judge's: the first of all records is the oldest.
        self._slots[persona] = self._in_order(said)

    def _say(self, n: int, persona: UUID, personality: UUID = ADA) -> list[Exchange]:
        made = self.lab.say(n, persona=persona, personality=personality)
        if self.lab.ltm.layout is Layout.SHARED:
            self.lab.sync()
        else:
            self.lab.deployed |= {each.anchor_id: self.lab.deploy(each).id for each in made}
            self.lab.sql("DELETE FROM memsync.outbox")
        return made

    @abstractmethod
    def _in_order(self, said: Sequence[Exchange]) -> list[Key]:
        """The keys of the records of these exchanges."""

    # ------------------------------------------------------------------ the verdict

    def reload(self) -> None:
        """Long-term memory that remembers nothing of the store."""
        self.lab.ltm = self.lab.with_store(self.lab.vectors)

    def verify(self) -> bool:
        """Whether `memsync check` ends with 0. Raises where it ends with neither 0 nor 1."""
        lab = self.lab
        with reconcile.check(
            lab.postgres, lab.ltm, lab.settings, verify=self.vectors, deep=self.deep
        ) as audit:
            report = Report.of(audit)
            if report.status not in {0, 1}:
                raise RuntimeError(f"{report.status}: {', '.join(audit.not_checked)}")
            self.verify_detail = ", ".join(sorted(audit.counts)) or None
            return report.status == 0

    # ------------------------------------------------------------------ records

    @abstractmethod
    def _read(self, persona: UUID) -> dict[Key, dict[str, Any]]:
        """The records of a persona, past memsync."""

    @abstractmethod
    def _write(self, key: Key, fields: dict[str, Any]) -> None:
        """Give what stands there the content of these fields, or write it anew."""

    @abstractmethod
    def _delete(self, key: Key) -> None:
        """Remove it."""

    @abstractmethod
    def _change(self, key: Key) -> None:
        """Change `field` of it."""

    def _records(self, persona: UUID) -> list[Record]:
        found = self._read(persona)
        order = self._slots[persona]
        keys = [key for key in order if key in found] + sorted(found.keys() - set(order))
        return [Record(seq, {"key": key, **found[key]}) for seq, key in enumerate(keys)]

    def read_all_raw(self) -> list[Record]:
        """The records of persona A, the oldest first."""
        return self._records(A)

    def read_other_raw(self) -> list[Record]:
        """Those of the other persona."""
        return self._records(self.other)

    def write_raw(self, record: Record) -> None:
        """Write the record's content at its place."""
        there = self.read_all_raw()
        here = there[record.seq].fields if record.seq < len(there) else record.fields
        self._write(here["key"], record.fields)

    def delete_raw(self, seq: int) -> None:
        """Remove the record at this place."""
        self._delete(self.read_all_raw()[seq].fields["key"])

    def replay_onto(self, victim_seq: int, donor: Record) -> None:
        """Write the donor's content over that of the record at this place."""
        self._write(self.read_all_raw()[victim_seq].fields["key"], donor.fields)

    def read_meta(self, seq: int) -> dict[str, Any]:
        """The record, as it is; what changes of it is said by `field`."""
        there = self.read_all_raw()
        return copy.deepcopy(there[seq].fields) if seq < len(there) else {}

    def write_meta(self, seq: int, meta: dict[str, Any]) -> None:
        """Change `field` of the record; the judge's own key has no place in it."""
        del meta
        self._change(self.read_all_raw()[seq].fields["key"])

    def identity_of(self, record: Record) -> str:
        """The key of a record."""
        return str(record.fields["key"])

    # ------------------------------------------------------------------ snapshots

    def snapshot_store(self) -> Snapshot:
        """All that the edited store holds, memsync's own records in it, too."""
        return Snapshot(
            self._tables() if self.in_postgres or self.both else None,
            self._points() if not self.in_postgres or self.both else None,
        )

    def restore_store(self, token: Snapshot) -> None:
        """Put it back."""
        if token.tables is not None:
            self._put_tables(token.tables)
        if token.points is not None:
            self._put_points(token.points)

    def _tables(self) -> dict[str, bytes]:
        with psycopg.connect(self.lab.url) as connection:
            names = [row[0] for row in connection.execute(TABLES)]
            found = {}
            for name in names:
                with connection.cursor().copy(_statement("COPY {} TO STDOUT BINARY", name)) as data:
                    found[name] = b"".join(map(bytes, data))
            return found

    def _put_tables(self, tables: Mapping[str, bytes]) -> None:
        with psycopg.connect(self.lab.url) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(_statement("TRUNCATE {}", *tables))
            for name, data in tables.items():
                copying = _statement("COPY {} FROM STDIN BINARY", name)
                with connection.cursor().copy(copying) as into:
                    into.write(data)

    def _points(self) -> dict[str, list[Point]]:
        vectors = self.lab.vectors
        return {name: list(scan(vectors, name, vectors=True)) for name in vectors.collections()}

    def _put_points(self, points: Mapping[str, Sequence[Point]]) -> None:
        for name in self.lab.vectors.collections():
            there = [each.id for each in scan(self.lab.vectors, name)]
            self.lab.vectors.delete(name, there)
        for name, some in points.items():
            self.lab.vectors.upsert(name, some)


def _statement(text: str, *names: str) -> sql.Composed:
    return sql.SQL(text).format(sql.SQL(", ").join(map(sql.SQL, names)))
