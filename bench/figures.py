"""The figures of a benchmark, each with its reference and its target: as a table and as JSON.

It decides how figures are written down. A figure's name contains its unit. A missed target is
printed and is no failure: a benchmark fails only when its measurement is wrong.
"""

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Figure:
    """One measured value. `limit` bounds the ratio to the reference if `limits_ratio`, else the
    value. It is a maximum unless `at_least`.
    """

    target: str
    name: str
    method: str
    value: float
    reference: float | None = None
    limit: float | None = None
    limits_ratio: bool = False
    at_least: bool = False

    @property
    def ratio(self) -> float | None:
        """The value over its reference."""
        return self.value / self.reference if self.reference else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target, or without a reference it needs."""
        judged = self.ratio if self.limits_ratio else self.value
        if self.limit is None or judged is None:
            return None
        return judged >= self.limit if self.at_least else judged <= self.limit

    def as_json(self) -> dict[str, Any]:
        """Every field, with the ratio and whether the target is met."""
        return asdict(self) | {"ratio": self.ratio, "met": self.met}

    def as_row(self) -> tuple[str, ...]:
        """The cells of the table."""
        limit = ""
        if self.limit is not None:
            sign = "≥" if self.at_least else "≤"
            limit = f"{'ratio ' if self.limits_ratio else ''}{sign} {self.limit:g}"
        met = {True: "met", False: "NOT met", None: ""}[self.met]
        numbers = (_number(each) for each in (self.value, self.reference, self.ratio))
        return (self.target, self.name, self.method, *numbers, limit, met)


def show(title: str, figures: Iterable[Figure]) -> None:
    """Print the figures as a table on stdout."""
    columns = ("", "measured", "method", "memsync", "reference", "ratio", "target", "")
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for column in table.columns[3:6]:
        column.justify = "right"
    for figure in figures:
        table.add_row(*figure.as_row())
    # rich would cut a table that goes into a pipe to 80 columns.
    Console(width=None if os.isatty(1) else 140).print(table)


def write_json(path: Path, figures: Iterable[Figure], **facts: object) -> None:
    """Write the figures as one JSON object, with facts about the machine and the given `facts`."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "system": platform.platform()},
        **facts,
        "figures": [figure.as_json() for figure in figures],
    }
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
