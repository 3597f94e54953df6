"""What an operator may choose for one run of the migration. Pure values; the command line and the
library give the same ones.
"""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from memsync.errors import InvalidInput
from memsync.model.phases import Phase

Unresolved = Literal["fail", "create"]
_ASSIGN = "assign:"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How `run` goes about it.

    `to` is the last phase that runs. `unresolved` says what happens to users without a persona:
    stop before anything is changed, or make a default persona for each. `orphan_owners` says it of
    personas without an owner that nobody, or several people, use: `fail`, `quarantine` (they leave
    the app's table and are kept), or `assign:USER_ID`.

    Raises: InvalidInput.
    """

    to: Phase = Phase.CONTRACT
    unresolved: Unresolved = "fail"
    orphan_owners: str = "fail"

    def __post_init__(self) -> None:
        if self.orphan_owners not in {"fail", "quarantine"}:
            _ = self.assigned_owner

    @property
    def assigned_owner(self) -> UUID | None:
        """The user who gets the personas that nobody owns; None unless the operator named one."""
        if self.orphan_owners in {"fail", "quarantine"}:
            return None
        try:
            return UUID(self.orphan_owners.removeprefix(_ASSIGN))
        except ValueError:
            raise InvalidInput(
                f"orphan_owners is {self.orphan_owners!r:.60}; it must be fail, quarantine or "
                "assign:USER_ID, with the uuid of a user",
                field="orphan_owners",
            ) from None
