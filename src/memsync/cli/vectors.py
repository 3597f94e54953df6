"""The options that say which vectors an audit looks at, and the line that says how many it did."""

import secrets
from typing import Annotated

import typer

from memsync.errors import InvalidInput
from memsync.model.wording import count
from memsync.reconcile.seen_vectors import Verified, Verify

_ALL = "all"
_SEEDS = 1_000_000

VectorsOption = Annotated[
    str | None,
    typer.Option(
        "--verify-vectors",
        metavar="N|all",
        help="Also look at the vectors of so many memories, chosen at random, or of all.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--verify-seed",
        metavar="SEED",
        min=0,
        help="Choose those that a report with this seed was about.",
    ),
]


def verify_of(asked: str | None, seed: int | None) -> Verify | None:
    """What the options ask for. Raises: InvalidInput for what is neither a number nor `all`."""
    if asked is None:
        if seed is not None:
            raise InvalidInput("--verify-seed is for --verify-vectors N; give both, or neither")
        return None
    if asked == _ALL:
        return Verify()
    if not asked.isdecimal() or not int(asked):
        raise InvalidInput(f"--verify-vectors takes a number from 1 on, or all, not {asked!r:.40}")
    return Verify(int(asked), secrets.randbelow(_SEEDS) if seed is None else seed)


def looked_at(verified: Verified | None) -> str:
    """How many vectors were looked at, as a line of a report."""
    if verified is None:
        return "vectors were not looked at: --verify-vectors all does it"
    of = count(verified.memories, "memory", "memories")
    said = f"looked at the vectors of {verified.looked_at:,} of {of}"
    if verified.seed is not None:
        said += f" (--verify-seed {verified.seed})"
    return f"{said}; {verified.compared:,} embedded anew and compared"


def fields(verified: Verified | None) -> dict[str, object]:
    """The same for a program."""
    if verified is None:
        return {"memories": None, "looked_at": 0, "compared": 0, "seed": None}
    return {
        "memories": verified.memories,
        "looked_at": verified.looked_at,
        "compared": verified.compared,
        "seed": verified.seed,
    }
