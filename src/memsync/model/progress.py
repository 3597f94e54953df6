"""The reports that a long step gives while it runs.

A consumer decides by the kind and never by the text, which is for people and may change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, auto


class Kind(StrEnum):
    """The subject of a report. STEP is for reports that no consumer has to distinguish."""

    PHASE = auto()
    """A phase begins; the text is its name."""
    PHASE_BACK = auto()
    """A phase is taken back; the text is its name."""
    PROOF = auto()
    """Every row is verified before contract."""
    METHOD = auto()
    """The backfill has chosen between filling in place and a shadow table."""
    FILL_PERSONAS = auto()
    FILL_USERS = auto()
    COPY = auto()
    """Rows go into the shadow table."""
    COPY_AGAIN = auto()
    """The copy into the shadow table starts again."""
    BUILD = auto()
    """The indexes and keys of the shadow table are built."""
    INDEX = auto()
    """One index of the shadow table is built."""
    CUTOVER = auto()
    """The shadow table is about to replace the table."""
    STEP = auto()
    COUNT = auto()
    """A step whose end is not known: it counts `done`, and has no total."""
    NOTE = auto()
    """Something that an operator should know."""
    PAUSED = auto()
    RESUMED = auto()
    WAITING_FOR_LOCK = auto()
    WAITING_FOR_TRANSACTIONS = auto()
    """An index build waits for the transactions that are open."""
    WAITING_FOR_CLIENTS = auto()
    WAITING_FOR_STANDBY = auto()
    WAITING_FOR_RATE = auto()
    WAITING_FOR_SERVICE = auto()
    """The relay waits for an embedder or a vector store that is down."""


WAITS = frozenset(
    (
        Kind.WAITING_FOR_LOCK,
        Kind.WAITING_FOR_TRANSACTIONS,
        Kind.WAITING_FOR_CLIENTS,
        Kind.WAITING_FOR_STANDBY,
        Kind.WAITING_FOR_RATE,
        Kind.WAITING_FOR_SERVICE,
    )
)
"""The kinds that say what a run waits for."""


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of the step `what`. A report without units has no total.

    Steps come one after another: a report on another step says that the one before has ended.

    `worked_s` is how long the work on the units that are done took, pauses left out; None where
    the step does not measure it.
    """

    kind: Kind
    what: str
    done: int = 0
    total: int | None = None
    worked_s: float | None = None


def seconds_left(done: int, total: int, worked_s: float) -> float | None:
    """How long the rest takes at the rate so far; None while nothing says a rate."""
    if done <= 0 or worked_s <= 0:
        return None
    return max(0, total - done) * worked_s / done


Tell = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Tell nobody."""
