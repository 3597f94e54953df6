"""Defines a run of the migration, and the interface of a phase.

The engine makes one `Run`, which holds everything that a phase works with, and gives it whole to
each `PhaseWork`. This module decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from memsync.migrate.attribution.evidence import Evidence
from memsync.migrate.options import RunOptions
from memsync.migrate.pacing.pace import Pace
from memsync.model.progress import Tell
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.ddl import OnlineDdl


@dataclass(slots=True)
class Run:
    """One run. Its session holds the migration's lock; only extra workers use other sessions.

    `rows_filled` counts the messages that were filled since the last entry in memsync.runs, which
    keeps `given`: the options, as `runs.command_of` reads them.
    """

    postgres: Postgres
    ddl: OnlineDdl
    pace: Pace
    options: RunOptions
    evidence: Evidence
    batch_target_ms: int
    tell: Tell
    given: Mapping[str, Any]
    rows_filled: int = 0

    @property
    def session(self) -> Session:
        """The session that holds the lock."""
        return self.ddl.session

    def forget_existing(self) -> None:
        """Leave the decision `existing` out of records and messages, once the backfill obeyed it.

        A command that they name may be typed much later, when other messages went wrong.
        """
        self.options = replace(self.options, existing=None)
        self.given = {name: value for name, value in self.given.items() if name != "existing"}

    def catalog(self) -> Catalog:
        """The catalog as it is now."""
        return Catalog.read(self.session)


class PhaseWork(Protocol):
    """The work of one phase. Each direction reads the catalog first and does only what is missing.

    So it may be run again after a crash at any point.
    """

    @property
    def phase(self) -> Phase:
        """Which phase this is."""
        ...

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of `forward`, a sentence each; `plan` prints them."""
        ...

    def forward(self, run: Run) -> None:
        """Do the phase.

        Raises: StoreBusy, GateClosed, PartlyDone, Cancelled.
        """
        ...

    def back(self, run: Run) -> None:
        """Take the phase back.

        Raises: StoreBusy, GateClosed, PartlyDone, Cancelled.
        """
        ...
