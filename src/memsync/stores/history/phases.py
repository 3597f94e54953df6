"""The phases of the migration, in their order, and the state each one leaves behind."""

from collections.abc import Collection
from enum import StrEnum


class Phase(StrEnum):
    """What `memsync migrate run` does, in this order. `--to` takes these names."""

    ISOLATE = "isolate"
    REDESIGN = "redesign"
    EXPAND = "expand"
    BACKFILL = "backfill"
    CONTRACT = "contract"


class Stage(StrEnum):
    """Where a database stands, as its catalog says."""

    LEGACY = "legacy"
    ISOLATED = "isolated"
    REDESIGNED = "redesigned"
    EXPANDED = "expanded"
    BACKFILLED = "backfilled"
    CONTRACTED = "contracted"


REACHED = {
    Phase.ISOLATE: Stage.ISOLATED,
    Phase.REDESIGN: Stage.REDESIGNED,
    Phase.EXPAND: Stage.EXPANDED,
    Phase.BACKFILL: Stage.BACKFILLED,
    Phase.CONTRACT: Stage.CONTRACTED,
}
"""The stage at which a database stands once the phase is done."""


def up_to(last: Phase) -> tuple[Phase, ...]:
    """The phases from the first to this one."""
    phases = tuple(Phase)
    return phases[: phases.index(last) + 1]


def stage_of(done: Collection[Phase]) -> Stage:
    """The stage of a database on which these phases are done: that of the last of them.

    An earlier one may be missing, where other hands did the later one.
    """
    return next((REACHED[phase] for phase in reversed(Phase) if phase in done), Stage.LEGACY)
