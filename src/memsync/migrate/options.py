"""What an operator may choose for one run of the migration. Pure values; the command line and the
library give the same ones.
"""

from dataclasses import dataclass
from typing import Literal

from memsync.model.phases import Phase

Unresolved = Literal["fail", "create"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How `run` goes about it.

    `to` is the last phase that runs. `unresolved` says what happens to users without a persona:
    stop before anything is changed, or make a default persona for each.
    """

    to: Phase = Phase.CONTRACT
    unresolved: Unresolved = "fail"
