"""The options that say which vectors an audit looks at, and the line that says how many it did.

It also names the check that looks at the same vectors again.
"""

import secrets
from collections.abc import Iterable
from typing import Annotated

import typer

from memsync.errors import InvalidInput
from memsync.model.wording import count
from memsync.reconcile import RULES
from memsync.reconcile.rules.vectors import VectorRule
from memsync.reconcile.seen_vectors import Verified, Verify

_ALL = "all"
_SEEDS = 1_000_000
_ABOUT_VECTORS = frozenset(
    word for rule in RULES if isinstance(rule, VectorRule) for word in (rule.code, rule.name)
)
NOT_LOOKED_AT = "vectors were not looked at: --verify-vectors all does it"

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


def option_of(verify: Verify | None) -> str:
    """The options that look at the same vectors again, with a space before them; empty for none."""
    if verify is None:
        return ""
    if verify.count is None:
        return f" --verify-vectors {_ALL}"
    return f" --verify-vectors {verify.count} --verify-seed {verify.seed}"


def check_again(verify: Verify | None = None, about: Iterable[str] = ()) -> str:
    """The check that sees what a command did: at the vectors that it looked at.

    A command that looked at none may be `about` findings of vectors, by their codes or names.
    """
    if verify is None and not _ABOUT_VECTORS.isdisjoint(about):
        verify = Verify()
    return f"memsync check{option_of(verify)}"


def looked_at(verified: Verified | None) -> str:
    """How many vectors were looked at, as a line of a report."""
    if verified is None:
        return NOT_LOOKED_AT
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
