"""The options that say how much of a store an audit reads, and by whom."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from memsync.errors import InvalidInput
from memsync.reconcile.deep import ALONE, How

DeepOption = Annotated[
    bool, typer.Option("--deep", help="Read every memory, also of a large shared collection.")
]
FingerprintOption = Annotated[
    bool,
    typer.Option(
        "--by-fingerprint",
        help="Read only memories whose fingerprints differ. By default, a shared collection of "
        "5,000 memories and more is compared so.",
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
    how: How, *, deep: bool = False, by_fingerprint: bool = False, vectors: bool = False
) -> Reading:
    """What the options ask for; `vectors`: to look at vectors.

    Raises: InvalidInput for options that contradict each other.
    """
    if by_fingerprint and (deep or vectors):
        other = "--deep" if deep else "--verify-vectors"
        raise InvalidInput(
            f"{other} reads every memory, and --by-fingerprint does not; give one or the other"
        )
    if vectors and how.in_parts:
        raise InvalidInput(
            "--verify-vectors reads every memory in one process; leave out --workers, "
            "--scheduler and --state, or --verify-vectors"
        )
    if how.in_parts and by_fingerprint:
        raise InvalidInput(
            "--workers, --scheduler and --state are for reading everything, and --by-fingerprint "
            "does not; give one or the other"
        )
    if how.workers > 1 and how.scheduler is not None:
        raise InvalidInput("--workers is for this machine, --scheduler for others; give one")
    if deep or how.in_parts:
        return Reading(deep=True, how=how)
    return Reading(deep=False if by_fingerprint else None, how=how)
