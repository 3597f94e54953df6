"""Benchmark: `migrate run` beside the all-in-one script that people used, on the same rows.

It measures how long clients wait (T1), how fast the migration is and how much the table grows (T2),
and how long the proof takes (T3), for every method that memsync offers. The script is measured too.
Usage: python bench/migrate.py [--rows 100000] [--rate] [--no-hostile] [--json FILE]
[--postgres-url URL].
Without a URL it starts an embedded server, durable, in a temporary folder.

It fails (status 1) when memsync gave a message a wrong persona, lost one, or did not find the wrong
persona that was planted: then no figure counts. A missed target is printed and is no failure.
"""

import argparse
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from clients import Waits
from figures import Figure, show, write_json
from legacy_rows import database, one, server
from passes import BY_TWO, REFERENCE, Invalid, Pass, hostile_run, measured, methods, proof, working

WAIT_MAX_MS = 100
SPEED_MAX = {"copy": 0.35, "in-place": 0.9}
GROWTH_MAX = {"copy": 1.2, "in-place": 1.3}
RATE_ROWS = (300_000, 3_000_000)
RATE_MIN = 0.9
PROOF_MAX_S = 10.0


def wait_figures(kind: str, ours: Pass, reference: Waits | None) -> Iterator[Figure]:
    """The figures of target T1 (waits) for one pass."""
    waits = ours.waits or Waits()
    for label, name, limit in (
        ("longest wait, ms", "worst_ms", WAIT_MAX_MS),
        ("wait p99.9, ms", "p99_9_ms", None),
        ("wait p99, ms", "p99_ms", None),
        ("statements that came through", "statements", None),
    ):
        theirs = getattr(reference, name) if reference else None
        yield Figure("T1", f"{kind}: {label}", ours.method, getattr(waits, name), theirs, limit)
    met = len(reference.errors) if reference else None
    yield Figure("T1", f"{kind}: client errors", ours.method, len(waits.errors), met, 0)


def speed_figures(ours: Pass, reference: Pass) -> Iterator[Figure]:
    """The figures of target T2 (speed and growth) for one pass."""
    method = ours.method
    yield Figure(
        "T2",
        "wall time, s",
        method,
        ours.wall_s,
        reference.wall_s,
        _of(method, SPEED_MAX),
        limits_ratio=True,
    )
    yield Figure(
        "T2",
        "growth of table and indexes",
        method,
        ours.growth,
        reference.growth,
        _of(method, GROWTH_MAX),
    )
    yield Figure(
        "", "growth of the database", method, ours.database_growth, reference.database_growth
    )
    yield Figure(
        "", "messages of a wrong persona", method, ours.wrong_personas, reference.wrong_personas, 0
    )


def _of(method: str, limits: dict[str, float]) -> float:
    return next(limit for name, limit in limits.items() if method.startswith(name))


def rate_figures(url: str, passes: list[Pass]) -> Iterator[Figure]:
    """T2's rate without other clients, for a small and a large history, with the reference."""
    alone: dict[tuple[str, int], Pass] = {}
    for rows in RATE_ROWS:
        for method in (REFERENCE, *methods()):
            with database(url, rows) as made:
                alone[method, rows] = measured(made, method, rows, working(method), live=False)
    passes += alone.values()
    small, large = RATE_ROWS
    for method in methods():
        for rows in RATE_ROWS:
            rate = alone[method, rows].rows_per_s
            reference = alone[REFERENCE, rows].rows_per_s
            yield Figure("", f"rate at {rows:,} messages, rows/s", method, rate, reference)
        yield Figure(
            "T2",
            "rate, large over small",
            method,
            alone[method, large].rows_per_s / alone[method, small].rows_per_s,
            alone[REFERENCE, large].rows_per_s / alone[REFERENCE, small].rows_per_s,
            RATE_MIN,
            at_least=True,
        )


def figures_of(url: str, rows: int, passes: list[Pass], *, with_hostile: bool) -> Iterator[Figure]:
    """Every figure for one size, each yielded once measured. The passes are added to `passes`."""
    with database(url, rows) as made:
        reference = measured(made, REFERENCE, rows, working(REFERENCE))
    passes.append(reference)
    for method in [each + workers for each in methods() for workers in ("", BY_TWO)]:
        with database(url, rows) as made:
            quiet = measured(made, method, rows, working(method))
        passes.append(quiet)
        yield from wait_figures("quiet", quiet, reference.waits)
        yield from speed_figures(quiet, reference)
    for method in methods() if with_hostile else ():
        with database(url, rows) as made:
            hostile = measured(made, method, rows, partial(hostile_run, method=method))
        passes.append(hostile)
        yield from wait_figures("hostile", hostile, None)
    with database(url, rows) as made:
        verify_s, guide_s = proof(made, rows)
    millions = rows / 1_000_000
    yield Figure(
        "T3",
        "proof, s per million (reference: counts only)",
        "in-place",
        verify_s / millions,
        guide_s / millions,
        PROOF_MAX_S,
    )


def main() -> int:
    """Measure, print the figures, write them if asked. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="messages of the main passes")
    parser.add_argument("--rate", action="store_true", help="also 300 k and 3 M, alone: minutes")
    parser.add_argument("--no-hostile", action="store_true", help="leave out the hostile passes")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--postgres-url", help="a server to make databases on")
    given = parser.parse_args()
    # SIGTERM acts like Ctrl-C, so that a server which was started is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    passes: list[Pass] = []
    with server(given.postgres_url) as url:
        try:
            wanted = figures_of(url, given.rows, passes, with_hostile=not given.no_hostile)
            figures = [*wanted]
            if given.rate:
                figures += rate_figures(url, passes)
        except Invalid as wrong:
            print(f"the benchmark failed: {wrong}", file=sys.stderr)
            return 1
        (version,) = one(url, "SHOW server_version")
    show(f"memsync migrate run, {given.rows:,} messages, Postgres {version}", figures)
    for each in passes:
        for error in each.waits.errors if each.waits else ():
            print(f"a client of {each.method} was told: {error}", file=sys.stderr)
    if given.json:
        seen = [asdict(each) for each in passes]
        write_json(given.json, figures, rows=given.rows, server_version=version, passes=seen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
