"""The record of audits in Postgres: when each was made, and how many faults of each code it had.

An audit writes nothing by itself; `memsync check --record` asks for it. The record holds numbers
and nobody's words, and every role of the schema may read it. It keeps the newest audits only. The
statements are in recorded.sql.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

from memsync.errors import MissingRight, SchemaMismatch
from memsync.reconcile.findings import Audit, Severity
from memsync.reconcile.rules import RULES
from memsync.stores.postgres import Session, relations

TABLE = "memsync.audits"
KEPT = 1000
"""So many audits stay in the record."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One audit of the record.

    `counts` has the faults by code that nobody had acknowledged. 0 says that they were looked for,
    and a code that is missing that they were not, or not everywhere.
    """

    begun_at: datetime
    seconds: float
    layout: str
    complete: bool
    counts: Mapping[str, int]
    acknowledged: int
    settling: int
    memsync_version: str

    @property
    def total(self) -> int:
        """All faults."""
        return sum(self.counts.values())


class Record:
    """The record in one database. One that has no such table has an empty record."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stands = bool(relations.existing(session, [TABLE]))

    def require_writable(self) -> None:
        """Refuse a database or a role with which nothing can be recorded.

        Raises: SchemaMismatch without the table; MissingRight.
        """
        if not self._stands:
            raise SchemaMismatch(
                f"{self._session.label} has no table {TABLE}: an older memsync made its schema, so "
                "no audit can be recorded. `memsync migrate run` adds the table"
            )
        if not self._session.row("record_rights").may_write:
            raise MissingRight(
                f"the role may not write {TABLE} at {self._session.label}, so no audit can be "
                f"recorded: GRANT SELECT, INSERT, DELETE ON {TABLE} to it, or leave --record out"
            )

    def put(self, audit: Audit, begun_at: datetime, seconds: float) -> None:
        """Add an audit, and forget those that are more than KEPT. Effects: Postgres."""
        with self._session.transaction():
            self._session.run(
                "record_audit",
                begun_at=begun_at,
                seconds=seconds,
                layout=audit.layout.value,
                complete=audit.complete,
                counts=json.dumps(counts_of(audit)),
                acknowledged=len(audit.acknowledged),
                settling=audit.settling,
                rows=audit.rows_checked,
                points=audit.points_checked,
                memsync_version=version("memsync"),
            )
            self._session.run("trim_record", kept=KEPT)

    def newest(self, limit: int) -> list[Recorded]:
        """So many audits at most, the newest first; none where the role may not read them."""
        if not self._stands or not self._session.row("record_rights").may_read:
            return []
        return [Recorded(*row) for row in self._session.rows("recorded_audits", limit=limit)]


def counts_of(audit: Audit) -> dict[str, int]:
    """Faults by code, as `Recorded.counts` has them."""
    sums: Counter[str] = Counter()
    if audit.complete:
        sums.update(
            {
                rule.code: 0
                for rule in RULES
                if rule.code in audit.looked_for
                and rule.severity_in(audit.layout) is not Severity.INFO
            }
        )
    for kind, number in audit.faults.kinds.items():
        sums[kind.code] += number
    return dict(sorted(sums.items()))
