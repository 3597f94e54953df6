"""What a long step tells of itself while it runs.

A consumer decides by the kind, never by the words: they are for people, and may change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, auto


class Kind(StrEnum):
    """What something told is about. STEP is whatever nobody has to tell from the rest."""

    PHASE = auto()
    """A phase begins; the text is its name."""
    PHASE_BACK = auto()
    """A phase is taken back; the text is its name."""
    PROOF = auto()
    """Every row is proven before contract."""
    METHOD = auto()
    """The backfill has chosen its way."""
    FILL_PERSONAS = auto()
    FILL_USERS = auto()
    COPY = auto()
    """Rows go into the shadow table."""
    COPY_AGAIN = auto()
    """The shadow table is started over."""
    BUILD = auto()
    """The indexes and keys of the shadow table are made."""
    INDEX = auto()
    """One index of the shadow table is built."""
    CUTOVER = auto()
    """The shadow table is to take the table's place."""
    STEP = auto()
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


WAITS = frozenset(
    (
        Kind.WAITING_FOR_LOCK,
        Kind.WAITING_FOR_TRANSACTIONS,
        Kind.WAITING_FOR_CLIENTS,
        Kind.WAITING_FOR_STANDBY,
        Kind.WAITING_FOR_RATE,
    )
)
"""The kinds that say for what a run waits."""


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of the step `what`; a message alone has no total."""

    kind: Kind
    what: str
    done: int = 0
    total: int | None = None


Tell = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Tell nobody."""
