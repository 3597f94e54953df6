"""Where a database stands in its migration, and the one decision of what comes next.

`Standing.read` asks the catalog, memsync's records and the gates, in the caller's snapshot.
`next_command` decides the next command from that alone, so `plan`, `status`, `verify` and `backup`
name the same one; `before` says what to wait for until then. `steps_of` says for each step of each
phase whether it is done.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Self

from memsync.migrate import runs
from memsync.migrate.contract import gates
from memsync.migrate.contract.gates import Gate
from memsync.migrate.options import RunOptions
from memsync.migrate.order import PHASES
from memsync.migrate.pacing.control import Runner, runner
from memsync.stores.history.catalog import (
    PERSONA_INDEX,
    PERSONA_KEY,
    RETRIEVAL_INDEX,
    USER_INDEX,
    Catalog,
    way_back_is_open,
)
from memsync.stores.history.phases import Phase, up_to
from memsync.stores.postgres import Session

PLAN = "memsync migrate plan"
RESUME = "memsync migrate resume"
VERIFY = "memsync migrate verify"
BACKUP = "memsync migrate backup"
FINALIZE = "memsync migrate finalize"
BEFORE_FINALIZE = (
    "wait until nobody wants to go back, a day and a night of use at least; finalize ends the way "
    "back from contract, and cannot be undone"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a phase, what it does, and whether nothing of it is left to do.

    `left_out` says that it was not done, because what came later takes its place.
    """

    phase: Phase
    what: str
    done: bool
    left_out: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """The facts from which the next command follows.

    `ahead` are the phases with something left to do, `goes_on` is the command that goes on with
    work that was cut short, `options` are the decisions in force. `begun` says that a run took
    them, so that the plan was read. `can_finalize` says that the way back is still kept.
    """

    run: Runner
    ahead: frozenset[Phase]
    goes_on: str | None
    begun: bool
    options: RunOptions
    gates: tuple[Gate, ...]
    can_finalize: bool

    @classmethod
    def read(
        cls,
        session: Session,
        catalog: Catalog,
        options: RunOptions | None = None,
        *,
        proving: bool = False,
    ) -> Self:
        """Read the facts. `options` are those of the run that is thought of.

        Without them it is a run that asks of contract what the last one did. With `proving` the
        gate of the proof reads every message.
        """
        left = frozenset(step.phase for step in steps_of(catalog) if not step.done)
        ahead = left | (frozenset(Phase) - catalog.done)
        last, decided = runs.last_run(session), runs.decisions(session)
        if options is None:
            given = last.given if last and last.verb == "run" else {}
            options = RunOptions().with_gates_of(given)
        settled = options.settled(decided)
        kept = catalog.has_own_table("runs") and way_back_is_open(session)
        return cls(
            run=runner(session),
            ahead=ahead,
            goes_on=last.goes_on if last and _is_left(last, catalog, ahead, kept=kept) else None,
            begun=any(decided.values()),
            options=settled,
            gates=gates.look(session, catalog, settled, proving=proving),
            can_finalize=kept and not ahead,
        )

    @property
    def closed(self) -> tuple[Gate, ...]:
        """The gates that are closed."""
        return tuple(gate for gate in self.gates if gate.state == "closed")


@dataclass(frozen=True, slots=True)
class Obstacles:
    """The findings of a plan's checks: phases that a blocker stops, and decisions to take."""

    stopped: frozenset[Phase] = frozenset()
    undecided: Mapping[str, str] = field(default_factory=dict)


def next_command(now: Standing, found: Obstacles | None = None) -> str | None:
    """The next command; None while a run is at work, or when nothing is left to do.

    `found` is None where the checks of a plan were not made. Where something must be mended by hand
    first, the next command is the one that says what.
    """
    if now.run.state in {"pausing", "paused"}:
        return RESUME
    if now.run.state != "idle":
        return None
    stopped = found.stopped if found else frozenset()
    undecided = found.undecided if found else {}
    if now.goes_on and not undecided and not stopped:
        return now.goes_on
    if fill := now.ahead - {Phase.CONTRACT}:
        unread = found is None and not now.begun
        run = now.options.command(to=Phase.BACKFILL, **undecided)
        return PLAN if unread or stopped & fill else run
    if not now.ahead:
        return FINALIZE if now.can_finalize else None
    return PLAN if stopped else _of_gates(now, undecided)


def _of_gates(now: Standing, undecided: Mapping[str, str]) -> str:
    """The command that opens the gates of contract, else the run that goes through them."""
    closed = {gate.name for gate in now.closed}
    if "proof" in closed:
        return VERIFY
    return BACKUP if "backup" in closed else now.options.command(to=Phase.CONTRACT, **undecided)


def before(now: Standing, then: str | None) -> str | None:
    """What to do or to wait for before `then`, the next command, is typed; None for nothing."""
    if then == FINALIZE:
        return BEFORE_FINALIZE
    quiet = next((gate for gate in now.closed if gate.name == "quiet"), None)
    if quiet is None or then in {None, VERIFY, PLAN, RESUME}:
        return None
    return (
        "let the version of the app that works by persona_id take the old one's place; contract "
        f"begins when nobody has used user_id for {now.options.quiet_minutes:g} min, in "
        f"{quiet.opens} at the earliest"
    )


def steps_of(catalog: Catalog) -> tuple[Step, ...]:
    """Each step of each phase, and whether it is done."""
    found = []
    for work in PHASES:
        for what, (done, left_out) in zip(work.steps, _states(catalog, work.phase), strict=True):
            found.append(Step(work.phase, what, done or left_out, left_out and not done))
    return tuple(found)


def _states(catalog: Catalog, phase: Phase) -> tuple[tuple[bool, bool], ...]:
    """For each step of the phase: whether it is done, and whether another takes its place."""
    whole = phase in catalog.done
    by_persona = "persona_id" in catalog.columns and not catalog.has_null_persona
    match phase:
        case Phase.ISOLATE:
            read_otherwise = Phase.EXPAND in catalog.done and USER_INDEX not in catalog.indexes
            index = catalog.indexes.get(USER_INDEX, False)
            return (catalog.has_own_table("runs"), False), (index, read_otherwise)
        case Phase.BACKFILL:
            built = (
                catalog.indexes.get(PERSONA_INDEX, False)
                and catalog.indexes.get(RETRIEVAL_INDEX, False)
                and catalog.constraints.get(PERSONA_KEY, False)
            )
            return (by_persona, False), (built, False)
        case Phase.CONTRACT:
            settings = catalog.settings
            gone = "user_id" not in catalog.columns and catalog.columns.get("persona_id", False)
            return (settings.stands and settings.old_is_gone, False), (gone, False)
        case _:
            return ((whole, False),)


def _is_left(last: runs.LastRun, catalog: Catalog, ahead: Collection[Phase], *, kept: bool) -> bool:
    """Whether something of the work that was cut short is left to do."""
    if last.verb == "run":
        return bool(ahead)
    if last.verb == "finalize":
        return kept
    to = last.given.get("to", "start")
    stays = () if to == "start" else up_to(Phase(to))
    return any(
        phase not in stays and phase in catalog.done | catalog.halfway and catalog.is_ours(phase)
        for phase in Phase
    )
