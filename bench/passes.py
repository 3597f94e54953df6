"""Measures one migration of one database, by a method that memsync offers or by the reference.

It decides what is timed, and when a measurement is valid: no message is lost, none has a wrong
persona, every hostile transaction has begun, the planted wrong row is found. It knows no target.
"""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, get_args, get_type_hints

import psycopg
from clients import Hostile, Waits, clients
from legacy_rows import one, sizes_bytes, wrong_rows

from memsync import migrate
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.settings import Settings
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Postgres

HELD_S = 10.0
REFERENCE = "all-in-one"

# The old script, in one transaction: every index and key first, then the fill, NOT NULL and drop.
ALL_IN_ONE = """
BEGIN;
ALTER TABLE conversation_history ADD COLUMN persona_id uuid;
CREATE INDEX conversation_history_persona_id_idx ON conversation_history (persona_id);
ALTER TABLE conversation_history ADD CONSTRAINT conversation_history_persona_id_fkey
    FOREIGN KEY (persona_id) REFERENCES personas (id) ON DELETE CASCADE ON UPDATE CASCADE;
UPDATE conversation_history h SET persona_id = u.global_persona_id
    FROM users u WHERE u.id = h.user_id AND h.persona_id IS NULL;
ALTER TABLE conversation_history ALTER COLUMN persona_id SET NOT NULL;
ALTER TABLE conversation_history DROP COLUMN user_id;
COMMIT;
"""

# The counts that people checked after the script.
GUIDE_CHECKS = """
SELECT count(*), count(DISTINCT persona_id), count(*) FILTER (WHERE persona_id IS NULL)
FROM conversation_history
"""

PLANT = """
UPDATE conversation_history SET persona_id = (
    SELECT id FROM personas p WHERE p.id <> conversation_history.persona_id ORDER BY id LIMIT 1)
WHERE id = (SELECT id FROM conversation_history OFFSET {row} LIMIT 1) RETURNING id
"""


class Invalid(Exception):
    """The measurement is wrong, so no figure counts."""


@dataclass
class Pass:
    """One measured migration: its time, the growth of the data (after / before), and the waits."""

    method: str
    rows: int
    wall_s: float
    growth: float
    database_growth: float
    wrong_personas: int
    waits: Waits | None = None
    phases_s: dict[str, float] = field(default_factory=dict)

    @property
    def rows_per_s(self) -> float:
        """The messages migrated per second."""
        return self.rows / self.wall_s


BY_TWO = ", 2 workers"
"""The suffix of a method's name when it is measured with two workers."""


def methods() -> list[str]:
    """Every method that memsync offers; `auto` chooses one of the others."""
    offered = get_args(get_type_hints(migrate.RunOptions)["method"])
    return [each for each in offered if each != "auto"]


def run_options(method: str, to: Phase = Phase.CONTRACT) -> migrate.RunOptions:
    """The options of a run that memsync offers, with the gates of contract switched off."""
    name = method.removesuffix(BY_TWO)
    wanted: dict[str, Any] = {
        "to": to,
        "method": name,
        "workers": 1 if name == method else 2,
        "backup_confirmed": "bench",
        "quiet_minutes": 0,
        "evidence": "ignore",
    }
    offered = {each.name for each in fields(migrate.RunOptions)}
    return migrate.RunOptions(**{name: wanted[name] for name in wanted.keys() & offered})


def memsync_run(url: str, method: str, tell: Tell = silent, to: Phase = Phase.CONTRACT) -> None:
    """Migrate with memsync."""
    with Postgres.open(url) as postgres:
        settings = Settings(postgres_url="postgresql://bench")
        migrate.run(postgres, settings, run_options(method, to), tell=tell)


def all_in_one(url: str) -> None:
    """Migrate with the reference script."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(ALL_IN_ONE)


def measured(
    url: str, method: str, rows: int, work: Callable[[str], None], *, live: bool = True
) -> Pass:
    """Time `work` on the database, with live clients or without.

    Raises: Invalid for a wrong persona by memsync; RuntimeError when a message was lost.
    """
    table, whole = sizes_bytes(url)
    with clients(url) if live else nullcontext() as waits:
        started = time.monotonic()
        work(url)
        wall_s = time.monotonic() - started
    table_after, whole_after = sizes_bytes(url)
    wrong = wrong_rows(url, rows)
    done = Pass(method, rows, wall_s, table_after / table, whole_after / whole, wrong, waits)
    if method != REFERENCE:
        if wrong:
            raise Invalid(f"memsync, {method}: {wrong} of {rows} messages have a wrong persona")
        done.phases_s = phases_s(url)
    worst = f", longest wait {waits.worst_ms:,.0f} ms" if waits else ""
    print(f"{method}, {rows:,} messages: {wall_s:.1f} s{worst}", file=sys.stderr, flush=True)
    return done


def phases_s(url: str) -> dict[str, float]:
    """The seconds that each phase took, from memsync.runs."""
    (found,) = one(
        url,
        "SELECT json_object_agg(phase, took_s) FROM (SELECT phase,"
        " round(sum(extract(epoch FROM ended_at - started_at)), 2) AS took_s"
        " FROM memsync.runs GROUP BY phase ORDER BY min(id)) phases",
    )
    return {str(phase): float(took_s) for phase, took_s in found.items()}


def hostile_run(url: str, method: str) -> None:
    """Migrate with memsync while hostile transactions are held open at expand, fill and contract.

    Raises: Invalid when one of the three did not begin, or ended with an error.
    """
    hostile = Hostile(url, HELD_S)
    begun: set[str] = set()

    def tell(step: Progress) -> None:
        moment = step.what if step.kind is Kind.PHASE else step.kind
        moment = "fill" if moment in {Kind.FILL_PERSONAS, Kind.COPY} else moment
        if moment in {Phase.EXPAND, "fill", Phase.CONTRACT} - begun:
            begun.add(moment)
            hostile.begin()

    memsync_run(url, method, tell)
    failed = hostile.ended()
    if failed or len(begun) != 3:
        raise Invalid(f"hostile transactions began at {sorted(begun)}, and met {failed}")


def proof(url: str, rows: int) -> tuple[float, float]:
    """The seconds that `migrate verify` takes before contract, and those of the old counts.

    Raises: Invalid unless verify finds and names exactly the planted wrong row.
    """
    memsync_run(url, "in-place", to=Phase.BACKFILL)
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(PLANT.format(row=rows // 2)).fetchone()
        if row is None:
            raise Invalid("no wrong persona was planted")
        started = time.monotonic()
        connection.execute(GUIDE_CHECKS).fetchone()
        guide_s = time.monotonic() - started
    with Postgres.open(url) as postgres:
        started = time.monotonic()
        found = migrate.verify(postgres)
        verify_s = time.monotonic() - started
    named = any(str(row[0]) in problem for problem in found.problems)
    if found.wrong_persona_ids != 1 or not named:
        raise Invalid(
            f"message {row[0]} was given a wrong persona; verify found {found.wrong_persona_ids}"
            f" wrong ones and said {found.problems}"
        )
    return verify_s, guide_s


def working(method: str) -> Callable[[str], None]:
    """The function that migrates a database by that method."""
    return all_in_one if method == REFERENCE else lambda url: memsync_run(url, method)
