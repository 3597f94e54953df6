"""The baseline in Postgres: which findings an operator has acknowledged, and why.

It stands in Postgres so that every machine sees the same. It holds digests, the names of what a
finding is about and the operator's reasons, and nobody's words. This module knows the table, and
not what a finding rests on. The statements are in acknowledged.sql.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from memsync.errors import SchemaMismatch
from memsync.model.sequences import batched
from memsync.reconcile.findings import Acknowledgement, Finding, Known
from memsync.stores.postgres import Session, relations

TABLE = "memsync.acknowledged"
_PAGE = 1000

Subject = tuple[str, str, str]
"""Code, store and key of a finding."""


def subject_of(finding: Finding) -> Subject:
    """What the finding is about."""
    return finding.code, finding.store, finding.key


class Acknowledgements:
    """The baseline in one database. In one that has no such table it is empty."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stands = bool(relations.existing(session, [TABLE]))

    def put(self, states: Mapping[Subject, str], reason: str) -> None:
        """Acknowledge the findings about these subjects, each in its state. Effects: Postgres.

        Raises: SchemaMismatch where the database has no such table yet.
        """
        if not self._stands:
            raise SchemaMismatch(
                f"{self._session.label} has no table {TABLE}: an older memsync made its schema, so "
                "nothing was acknowledged. `memsync migrate run` adds the table"
            )
        codes, stores, keys = zip(*states, strict=True)
        self._session.run(
            "acknowledge_findings",
            codes=list(codes),
            stores=list(stores),
            keys=list(keys),
            states=[bytes.fromhex(each) for each in states.values()],
            reason=reason,
        )

    def of(self, subjects: Iterable[Subject]) -> dict[Subject, Known]:
        """What the baseline says of these subjects."""
        asked = list(dict.fromkeys(subjects))
        if not self._stands or not asked:
            return {}
        codes, stores, keys = zip(*asked, strict=True)
        rows = self._session.rows(
            "acknowledgements_of", codes=list(codes), stores=list(stores), keys=list(keys)
        )
        return {(row.code, row.store, row.key): _known(row) for row in rows}

    def by_id(self, ids: Collection[int]) -> list[Known]:
        """Those of these ids, as far as there are any."""
        rows = self._session.rows("acknowledgements_by_id", ids=list(ids)) if self._stands else ()
        return [_known(row) for row in rows]

    def all(self, codes: Collection[str] | None = None) -> Iterator[Known]:
        """The whole baseline, or what it has of some codes, the oldest first; read by pages."""
        wanted = None if codes is None else sorted(codes)
        after = 0
        while self._stands:
            rows = self._session.rows(
                "acknowledgements_after", after=after, codes=wanted, limit=_PAGE
            )
            yield from map(_known, rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1].id

    def counts(self) -> dict[str, int]:
        """How many acknowledgements there are of each code."""
        rows = self._session.rows("acknowledgement_counts") if self._stands else ()
        return {row.code: row.findings for row in rows}

    def drop(self, known: Iterable[Known]) -> dict[str, int]:
        """Drop these, in the states that they have. Returns how many went, by code.

        Effects: Postgres.
        """
        gone: Counter[str] = Counter()
        for some in batched(known, _PAGE):
            rows = self._session.rows(
                "drop_acknowledgements",
                ids=[each.id for each in some],
                states=[bytes.fromhex(each.state) for each in some],
            )
            gone.update(row.code for row in rows)
        return dict(gone)


def _known(row: Any) -> Known:
    said = Acknowledgement(row.reason, row.who, row.acknowledged_at)
    return Known(row.id, row.code, row.store, row.key, row.state, said)
