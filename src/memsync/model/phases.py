"""The phases of the migration, in their order, and the state each one leaves behind."""

from enum import StrEnum


class Phase(StrEnum):
    """What `memsync migrate run` does, in this order. `--to` takes these names."""

    ISOLATE = "isolate"
    EXPAND = "expand"
    BACKFILL = "backfill"
    CONTRACT = "contract"


class Stage(StrEnum):
    """Where a database stands, as its catalog says."""

    LEGACY = "legacy"
    ISOLATED = "isolated"
    EXPANDED = "expanded"
    BACKFILLED = "backfilled"
    CONTRACTED = "contracted"


REACHED = {
    Phase.ISOLATE: Stage.ISOLATED,
    Phase.EXPAND: Stage.EXPANDED,
    Phase.BACKFILL: Stage.BACKFILLED,
    Phase.CONTRACT: Stage.CONTRACTED,
}
"""The stage at which a database stands once the phase is done."""


def ahead(stage: Stage) -> list[Phase]:
    """The phases that are still to run from `stage`, in order."""
    stages = list(Stage)
    return [phase for phase in Phase if stages.index(REACHED[phase]) > stages.index(stage)]
