"""Benchmark: audit, plan and apply at several sizes, in both layouts, on each kind of store.

It measures the seconds and the peak memory of the commands themselves, each in a process of its
own, and fits lines to the seconds: how much each exchange costs beyond the start. One exchange in
a hundred differs; the plan repairs them all, and an audit afterwards finds nothing.
Usage: python bench/reconcile.py [--rows 100000] [--large] [--sizes N ...] [--layouts LAYOUT ...]
[--stores edge server] [--of-a-persona 100] [--share 0.01] [--json FILE] [--postgres-url URL].
The sizes are rows/100, rows/20 and rows/10 exchanges, with --large also rows/2. A server is
measured where the program `qdrant` is on PATH.

It fails (status 1) when an audit does not find exactly the planted differences, when an apply does
not carry out its plan, or when the audit afterwards is not clean: then no figure counts.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import correlation, linear_regression
from typing import Any

from both_stores import EMBEDDER, OF_A_PERSONA, make_app, make_memories
from commands import Ran, environ_of, qdrant_program, ran
from figures import Figure, write_json
from legacy_rows import empty_database, one, server
from rich.console import Console
from rich.table import Table

from memsync.settings import Settings
from memsync.stores.vectors import open_vectors

LAYOUTS = ("shared", "per-persona")
STORES = ("edge", "server")
_FINDINGS = 1


class Invalid(Exception):
    """The measurement is wrong, so no figure counts."""


@dataclass(frozen=True)
class Measured:
    """One command at one size."""

    store: str
    layout: str
    exchanges: int
    command: str
    ran: Ran

    @property
    def series(self) -> str:
        """What is the same at all sizes."""
        return f"{self.store}, {self.layout}"


@dataclass(frozen=True)
class Line:
    """Seconds = `start_s` + `each_s` * exchanges. `r2` tells how well they fit, 1 is best."""

    start_s: float
    each_s: float
    r2: float

    @classmethod
    def through(cls, exchanges: Sequence[int], seconds: Sequence[float]) -> "Line | None":
        """The line through these by least squares; None for fewer than three sizes."""
        if len(set(exchanges)) < 3:
            return None
        each_s, start_s = linear_regression(exchanges, seconds)
        return cls(start_s, each_s, correlation(exchanges, seconds) ** 2)

    def __str__(self) -> str:
        each_ms = self.each_s * 1000
        return f"seconds = {self.start_s:.2f} + {each_ms:.3f} ms * exchanges, R² = {self.r2:.4f}"


def measured(
    settings: Settings, store: str, exchanges: int, expected: Mapping[str, int]
) -> Iterator[Measured]:
    """Audit, plan and apply, and the audit afterwards, with what each must say."""
    environ = environ_of(settings)

    def run(command: str, *arguments: str, status: int = 0) -> tuple[Measured, Any]:
        done = ran(["reconcile", *arguments], environ)
        said = json.loads(done.last or "{}")
        if done.status != status:
            raise Invalid(f"{command} ended with status {done.status}, not {status}: {said}")
        return Measured(store, settings.layout, exchanges, command, done), said

    with tempfile.TemporaryDirectory(prefix="memsync-bench-") as folder:
        plan = f"{folder}/plan.json"
        figure, said = run("audit", "audit", "--deep", "--json-lines", status=_FINDINGS)
        _require("findings", dict(expected), dict(said["counts"]))
        yield figure
        figure, said = run("plan", "plan", "--unsafe", "--out", plan, "--json")
        _require("actions", sum(expected.values()), said["actions"])
        yield figure
        figure, said = run("apply", "apply", plan, "--remove-many", "--json")
        _require("actions carried out", sum(expected.values()), said["done"])
        yield figure
        figure, said = run("audit, nothing differs", "audit", "--deep", "--json-lines")
        _require("findings afterwards", {}, said["counts"])
        yield figure


def _require(what: str, expected: object, found: object) -> None:
    if expected != found:
        raise Invalid(f"{what}: {found}, not {expected}")


@contextmanager
def stores(names: Sequence[str]) -> Iterator[dict[str, str]]:
    """The URLs of the kinds of stores that are here; FOLDER stands for an empty folder."""
    found = {"edge": "edge:FOLDER"} if "edge" in names else {}
    if "server" not in names:
        yield found
        return
    with qdrant_program() as url:
        if url is None:
            print("no program `qdrant` on PATH: a server is not measured", file=sys.stderr)
        else:
            found["server"] = url
        yield found


@contextmanager
def app_on(
    postgres_url: str, url: str, layout: str, exchanges: int, of_a_persona: int = OF_A_PERSONA
) -> Iterator[Settings]:
    """A migrated app with so many exchanges and no memories; the stores are empty afterwards."""
    with (
        empty_database(postgres_url) as database,
        tempfile.TemporaryDirectory(prefix="memsync-bench-") as folder,
    ):
        settings = Settings(
            postgres_url=database,
            qdrant_url=url.replace("FOLDER", folder),
            layout=layout,
            embedder=EMBEDDER,
        )
        make_app(database, exchanges, of_a_persona)
        yield settings
        if "FOLDER" not in url:
            _empty(settings)


def series(
    given: argparse.Namespace, postgres_url: str, urls: Mapping[str, str]
) -> Iterator[Measured]:
    """Every command at every size, in each layout, on each store."""
    for exchanges in given.sizes:
        for layout in given.layouts:
            for store, url in urls.items():
                with app_on(postgres_url, url, layout, exchanges, given.of_a_persona) as settings:
                    expected = make_memories(settings, given.share)
                    yield from measured(settings, store, exchanges, expected)


def _empty(settings: Settings) -> None:
    vectors = open_vectors(settings)
    for name in vectors.collections():
        vectors.drop(name)
    vectors.close()


def figures_of(found: Sequence[Measured]) -> Iterator[Figure]:
    """The figures of all commands."""
    for each in found:
        name = f"{each.command}, {each.exchanges:,} exchanges"
        yield Figure("", f"{name}: s", each.series, each.ran.wall_s)
        yield Figure("", f"{name}: s of its own on a CPU", each.series, each.ran.cpu_s)
        yield Figure("", f"{name}: peak memory, MiB", each.series, each.ran.peak_mib)


def lines_of(found: Sequence[Measured]) -> dict[str, Line]:
    """The lines through the seconds of each command of each series, and through those on a CPU."""
    lines = {}
    for series_name, command in dict.fromkeys((each.series, each.command) for each in found):
        same = [e for e in found if (e.series, e.command) == (series_name, command)]
        sizes = [each.exchanges for each in same]
        for unit, seconds in (
            ("s", [each.ran.wall_s for each in same]),
            ("s of its own on a CPU", [each.ran.cpu_s for each in same]),
        ):
            if line := Line.through(sizes, seconds):
                lines[f"{series_name}: {command}, {unit}"] = line
    return lines


def print_all(title: str, found: Sequence[Measured], lines: Mapping[str, Line]) -> None:
    """Print a table with a line for each command and size, and the lines through them."""
    columns = ("store, layout", "command", "exchanges", "s", "s on a CPU", "peak, MiB")
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for each in sorted(found, key=lambda one: (one.series, one.command, one.exchanges)):
        took = (f"{each.ran.wall_s:.1f}", f"{each.ran.cpu_s:.1f}", f"{each.ran.peak_mib:,.0f}")
        table.add_row(each.series, each.command, f"{each.exchanges:,}", *took)
    Console(width=None if os.isatty(1) else 140).print(table)
    for name, line in lines.items():
        print(f"{name}: {line}")


def main() -> int:
    """Measure, print the figures and the lines, write them if asked. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="messages; see above")
    parser.add_argument("--large", action="store_true", help="also rows/2 exchanges: long")
    parser.add_argument("--sizes", type=int, nargs="+", help="exchanges, instead of --rows")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument(
        "--of-a-persona", type=int, default=OF_A_PERSONA, help="exchanges of each persona"
    )
    parser.add_argument("--share", type=float, default=0.01, help="of the exchanges that differ")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--postgres-url", help="a server to make databases on")
    given = parser.parse_args()
    parts = (100, 20, 10, 2) if given.large else (100, 20, 10)
    given.sizes = given.sizes or [given.rows // part for part in parts]
    # SIGTERM acts like Ctrl-C, so that servers which were started are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found: list[Measured] = []
    with server(given.postgres_url) as url, stores(given.stores) as urls:
        try:
            for each in series(given, url, urls):
                found.append(each)
                print(
                    f"{each.series}: {each.command} of {each.exchanges:,} exchanges: "
                    f"{each.ran.wall_s:.1f} s, {each.ran.peak_mib:,.0f} MiB",
                    file=sys.stderr,
                )
        except Invalid as wrong:
            print(f"the benchmark failed: {wrong}", file=sys.stderr)
            return 1
        (version,) = one(url, "SHOW server_version")
    figures, lines = list(figures_of(found)), lines_of(found)
    print_all(f"memsync reconcile, {given.share:.1%} differ, Postgres {version}", found, lines)
    if given.json:
        fits = {name: asdict(line) for name, line in lines.items()}
        write_json(given.json, figures, share=given.share, server_version=version, lines=fits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
