"""The options of one run of the migration, as pure values, and the command that names them.

The command line and the library use the same ones. Every message that names `memsync migrate run`
takes the command from here, so that typing it goes on with the options that were in force.
"""

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self
from uuid import UUID

from memsync.errors import InvalidInput
from memsync.stores.history.phases import Phase

Unresolved = Literal["fail", "create"]
EvidenceUse = Literal["prefer", "none-expected", "ignore"]
Existing = Literal["fail", "keep", "decide"]
Method = Literal["auto", "in-place", "copy"]
_ASSIGN = "assign:"
WORKERS_MAX = 16
_DECIDED = {
    "unresolved": "fail",
    "orphan_owners": "fail",
    "existing": "fail",
    "evidence": "prefer",
}
"""The decisions, and what holds where none was taken."""
_OF_GATES = ("quiet_minutes", "backup_confirmed", "backup_max_age_hours")
"""The options that contract's gates are judged by."""
_FLAGS = {"max_rate_mb_s": "--max-rate"}
"""Options of the command whose names are not those of the fields."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run works.

    Four options are decisions: `unresolved`, `orphan_owners`, `existing` and `evidence`. None
    leaves the decision of the last run in force; without one it is `fail`, for evidence `prefer`.
    Once the backfill stands, only a run that is given `existing` itself acts on it.

    `to` is the last phase that runs. `unresolved` is for users without a persona: `fail` stops
    before anything is changed, `create` makes a default persona for each. `orphan_owners` is for
    personas without an owner that no user, or several users, use: `fail`, `quarantine` (they leave
    the app's table and are kept), or `assign:USER_ID`. `existing` is for messages that had a
    persona before memsync came and that the settings do not confirm: `fail`, `keep` them, or
    `decide` them by the settings. `evidence` says whether memories that were made from the old
    exchanges decide who spoke, before the settings do: `prefer` reads them from a store that must
    have some, `none-expected` also from one without a point, `ignore` reads none. `method` is how
    the backfill fills: row by row in place, or by a copy that takes the table's place; `auto`
    copies where nothing forbids it and the disk has space (see backfill/method.py).

    Contract begins only if no client used user_id for `quiet_minutes` (0: not checked), and there
    is a backup: one that `backup_confirmed` names in words, else one that memsync made within
    `backup_max_age_hours`.

    A fill waits while a standby lags more than `max_lag_ms` behind, or while the server writes more
    than `max_rate_mb_s` of WAL. None: no such limit. `workers` sessions work at the same time: they
    fill in place, or build the indexes of a copy.

    Raises: InvalidInput for a value that is not allowed.
    """

    to: Phase = Phase.CONTRACT
    unresolved: Unresolved | None = None
    orphan_owners: str | None = None
    existing: Existing | None = None
    evidence: EvidenceUse | None = None
    method: Method = "auto"
    quiet_minutes: float = 10
    backup_confirmed: str | None = None
    backup_max_age_hours: float = 24
    max_lag_ms: float | None = None
    max_rate_mb_s: float | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.quiet_minutes) and self.quiet_minutes >= 0):
            raise InvalidInput(
                f"quiet_minutes is {self.quiet_minutes}: give 0 or more minutes",
                field="quiet_minutes",
            )
        if self.backup_confirmed is not None and not self.backup_confirmed.strip():
            raise InvalidInput(
                "backup_confirmed is empty: say which backup it is, the record of runs keeps it",
                field="backup_confirmed",
            )
        for name in ("backup_max_age_hours", "max_lag_ms", "max_rate_mb_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidInput(f"{name} is {value}: give more than 0", field=name)
        if not 1 <= self.workers <= WORKERS_MAX:
            raise InvalidInput(
                f"workers is {self.workers}: give 1 to {WORKERS_MAX}", field="workers"
            )
        _ = self.assigned_owner

    @property
    def assigned_owner(self) -> UUID | None:
        """The user who gets the personas without an owner; None unless the operator named one."""
        if self.orphan_owners in {None, "fail", "quarantine"}:
            return None
        try:
            return UUID(str(self.orphan_owners).removeprefix(_ASSIGN))
        except ValueError:
            raise InvalidInput(
                f"orphan_owners is {self.orphan_owners!r:.60}; it must be fail, quarantine or "
                "assign:USER_ID, with the uuid of a user",
                field="orphan_owners",
            ) from None

    @property
    def for_unresolved(self) -> Unresolved:
        """The choice for users without a persona."""
        return self.unresolved or "fail"

    @property
    def for_orphans(self) -> str:
        """The choice for personas without an owner."""
        return self.orphan_owners or "fail"

    def settled(self, before: Mapping[str, Any]) -> Self:
        """These options with the decisions of `before` where they take none.

        A decision stays None where neither took one, or `before` took what holds without it.
        """
        taken = {name: before.get(name) for name in _DECIDED if getattr(self, name) is None}
        return replace(self, **_not_usual(taken))

    def with_gates_of(self, before: Mapping[str, Any]) -> Self:
        """These options, which ask of contract's gates what `before`, a record, asked."""
        return replace(self, **{name: before[name] for name in _OF_GATES if name in before})

    def as_given(self) -> dict[str, Any]:
        """The decisions taken, and each option that is not what holds without it, by name."""
        usual = asdict(type(self)())
        mine = asdict(self)
        return {name: value for name, value in mine.items() if value not in (None, usual[name])}

    def for_record(self) -> dict[str, Any]:
        """The same with every decision, also those that nobody took."""
        return _DECIDED | self.as_given()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The options that `for_record` has written down; names of another version are left out."""
        known = {each.name for each in fields(cls)}
        taken = _not_usual({name: value for name, value in given.items() if name in known})
        if "to" in taken:
            taken["to"] = Phase(taken["to"])
        return cls(**taken)

    def command(self, **other: Any) -> str:
        """The command that runs with these options; `other` are options that differ.

        It names a decision also where it is what holds without one: an earlier run may have taken
        another.
        """
        words = ["memsync", "migrate", "run"]
        for name, value in replace(self, **other).as_given().items():
            shown = repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
            words += [_FLAGS.get(name, f"--{name.replace('_', '-')}"), shown]
        return shlex.join(words)


def _not_usual(taken: Mapping[str, Any]) -> dict[str, Any]:
    """Without the decisions that are what holds without them."""
    return {name: value for name, value in taken.items() if value != _DECIDED.get(name)}
