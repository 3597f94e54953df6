"""Counts what is asked of the stores, for tests of how that grows with the data."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from memsync.stores.postgres import Session
from memsync.stores.vectors.protocol import AnyOf, Page
from support.failing import Failing


@dataclass
class Counting(Failing):
    """Counts the points that scrolls return."""

    returned: int = 0

    def scroll(self, collection: str, *, any_of: AnyOf | None = None, **others: Any) -> Page:
        page = super().scroll(collection, any_of=any_of, **others)
        self.returned += len(page.points)
        return page


@dataclass(frozen=True)
class Asked:
    """How often each statement ran, and how many rows each returned."""

    calls: Counter[str]
    rows: Counter[str]

    def exchanges(self) -> int:
        """How many exchanges were read."""
        return sum(n for name, n in self.rows.items() if name.startswith("exchanges_"))


@contextmanager
def asked() -> Iterator[Asked]:
    """What Postgres is asked through sessions inside, as far as it returns rows."""
    seen = Asked(Counter(), Counter())

    def counted(name: str, rows: list[Any]) -> list[Any]:
        seen.calls[name] += 1
        seen.rows[name] += len(rows)
        return rows

    def rows(self: Session, name: str, /, **params: Any) -> list[Any]:
        return counted(name, plain(self, name, **params))

    def rows_with(
        self: Session, fragments: Mapping[str, str], name: str, /, **params: Any
    ) -> list[Any]:
        return counted(name, filled(self, fragments, name, **params))

    plain, filled = Session.rows, Session.rows_with
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "rows", rows)
        patch.setattr(Session, "rows_with", rows_with)
        yield seen
