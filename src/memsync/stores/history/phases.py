"""The phases of the migration in their order, and the stage that each one reaches."""

from collections.abc import Collection
from enum import StrEnum


class Phase(StrEnum):
    """The phases of `memsync migrate run`, in this order. `--to` takes these names."""

    ISOLATE = "isolate"
    REDESIGN = "redesign"
    EXPAND = "expand"
    BACKFILL = "backfill"
    CONTRACT = "contract"


class Stage(StrEnum):
    """How far the migration of a database has come."""

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
"""The stage of a database once the phase is done."""


def up_to(last: Phase) -> tuple[Phase, ...]:
    """The phases from the first to this one."""
    phases = tuple(Phase)
    return phases[: phases.index(last) + 1]


def stage_of(done: Collection[Phase]) -> Stage:
    """The stage of a database on which these phases are done: that of the last of them.

    An earlier phase may not be done, because the app itself may have done a later one.
    """
    return next((REACHED[phase] for phase in reversed(Phase) if phase in done), Stage.LEGACY)
