"""The options that say how much of a store an audit reads, and by whom."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from memsync.errors import InvalidInput
from memsync.reconcile.deep import ALONE, How

DeepOption = Annotated[
    bool | None,
    typer.Option(
        "--deep/--by-fingerprint",
        help="Read every memory, or only those whose fingerprints differ. By default, a shared "
        "collection of 5,000 memories and more is compared by fingerprint.",
        show_default=False,
    ),
]
WorkersOption = Annotated[
    int, typer.Option("--workers", metavar="N", min=1, help="Read everything, by N processes.")
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Read everything, by the workers of a Dask scheduler.",
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--max-points-per-s", metavar="N", min=1, help="Read at most so many points a second."
    ),
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="FILE",
        help="Read everything, and keep in this file how far it came, to go on after a crash.",
    ),
]


@dataclass(frozen=True, slots=True)
class Reading:
    """How much is read: `deep` for everything, None as the audit decides; and by whom."""

    deep: bool | None = None
    how: How = ALONE


USUAL = Reading()


def reading_of(
    deep: bool | None,
    workers: int,
    scheduler: str | None,
    points_per_s: float | None,
    state: Path | None,
) -> Reading:
    """What the options ask for. Raises: InvalidInput for options that contradict each other."""
    how = How(workers, scheduler, points_per_s, state)
    if how.in_parts and deep is False:
        raise InvalidInput(
            "--workers, --scheduler and --state are for reading everything, and --by-fingerprint "
            "does not; give one or the other"
        )
    if workers > 1 and scheduler is not None:
        raise InvalidInput("--workers is for this machine, --scheduler for others; give one")
    return Reading(True if how.in_parts else deep, how)
