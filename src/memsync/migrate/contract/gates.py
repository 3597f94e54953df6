"""The gates of contract: what must hold before user_id is dropped.

There are three, in this order: the proof (every row's persona is right), quiet (no client still
works by user_id), and the backup (there is one). `look` answers them for a report, `require_open`
for a run, so both say the same. This module writes only to memsync.runs. A trigger notes when any
client last named user_id in an INSERT (expand/sync_triggers.sql). Reads, and an UPDATE or DELETE by
user_id, are seen only as the last statement of a session that is connected now. Index statistics
are not used, because they also count cascades, and reads that need only the first columns of an
index. Neither is pg_stat_statements, because it does not say when a statement ran.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from memsync.errors import GateClosed
from memsync.migrate import runs
from memsync.migrate.contract.proof import prove
from memsync.migrate.options import RunOptions
from memsync.model.progress import Kind, Progress, Tell
from memsync.model.wording import count, listed
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import OWN_STATEMENT, Session


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate: whether it is open, why, and what opens it.

    `opens_in_s` is how long a closed gate stays so if nothing more happens; None where time does
    not open it. A gate that was not asked is neither open nor closed.
    """

    name: Literal["proof", "quiet", "backup"]
    state: Literal["open", "closed", "not asked"]
    found: str
    next: str | None = None
    opens_in_s: float | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    note: str | None = None

    @property
    def opens(self) -> str | None:
        """When a closed gate opens if nothing more happens; None where time does not open it."""
        seconds = self.opens_in_s
        return None if seconds is None else str(timedelta(seconds=round(seconds)))


def look(
    session: Session, catalog: Catalog, options: RunOptions, *, proving: bool
) -> tuple[Gate, ...]:
    """The gates as they are now, where contract is what comes next; else none. Reads only.

    Without `proving` the proof is not made, because it reads every message.
    """
    if "user_id" not in catalog.columns or Phase.BACKFILL not in catalog.done:
        return ()
    if _is_begun(session, catalog):
        return (_proof(session, catalog),) if proving and catalog.has_users else ()
    unproven = Gate(
        "proof", "not asked", "the run makes it before anything else", "memsync migrate verify"
    )
    return (
        _proof(session, catalog) if proving and catalog.has_users else unproven,
        _quiet(session, options),
        _backup(session, options),
    )


def require_open(session: Session, options: RunOptions, tell: Tell) -> None:
    """Check every gate; note in the record of runs that they are open, and why.

    For a contract that passed them and was cut short, only the proof is repeated.
    Raises: GateClosed for the gates that are closed; the proof alone where it fails.
    """
    catalog = Catalog.read(session)
    # Without filled user_ids there is nothing to recompute from: a way back was cut short, and
    # every row was proven before the contract that it takes back.
    if catalog.has_users:
        tell(Progress(Kind.PROOF, "verify"))
        _require_all((_proof(session, catalog),), options)
    if _is_begun(session, catalog):
        note = "finishes a contract that was cut short"
    else:
        quiet, backup = _quiet(session, options), _backup(session, options)
        _require_all((quiet, backup), options)
        if quiet.note:
            tell(Progress(Kind.NOTE, f"note: {quiet.note}"))
        note = f"{quiet.found}; {backup.found}"
    runs.note_gates_passed(session, note)


def _is_begun(session: Session, catalog: Catalog) -> bool:
    return Phase.CONTRACT in catalog.halfway and runs.contract_was_begun(session)


def _require_all(gates: Sequence[Gate], options: RunOptions) -> None:
    """Refuse for the first gate that is closed, and name the others, so that nobody waits twice."""
    closed = [gate for gate in gates if gate.state == "closed"]
    if not closed:
        return
    first, *others = closed
    also = "".join(
        f". The gate {gate.name} is closed, too: {gate.found}; do: {gate.next}" for gate in others
    )
    raise GateClosed(_REFUSED[first.name](first, options) + also, **first.facts)


def _without_proof(gate: Gate, options: RunOptions) -> str:
    return (
        f"contract may not start, the proof failed: {gate.found}. See `memsync migrate verify`. If "
        f"all of these were filled by other means, type `{options.command(existing='keep')}`, or "
        f"`{options.command(existing='decide')}` to give them what the settings say; user_id is "
        "still there"
    )


def _in_use(gate: Gate, options: RunOptions) -> str:
    return (
        f"contract may not start, because {gate.found}. {str(gate.next).capitalize()} "
        f"{gate.opens}, then type `{options.command()}` again; or skip this gate with "
        f"`{options.command(quiet_minutes=0)}`. user_id is still there"
    )


def _without_backup(gate: Gate, options: RunOptions) -> str:
    return (
        f"contract may not start without a backup: {gate.found}. Make one with `memsync migrate "
        f"backup` and type `{options.command()}` again, or say which one you have with "
        f"`{options.command(backup_confirmed='TEXT')}`. user_id is still there"
    )


_REFUSED: Mapping[str, Callable[[Gate, RunOptions], str]] = {
    "proof": _without_proof,
    "quiet": _in_use,
    "backup": _without_backup,
}


def _proof(session: Session, catalog: Catalog) -> Gate:
    proof = prove(session, catalog)
    if proof.ok:
        every = count(proof.rows_total, "message")
        return Gate("proof", "open", f"every one of {every} is proven")
    problems = list(proof.problems)
    return Gate(
        "proof",
        "closed",
        "; ".join(problems),
        "memsync migrate verify",
        facts={"problems": problems},
    )


def _quiet(session: Session, options: RunOptions) -> Gate:
    """Whether clients still work by user_id, and how that is known."""
    minutes = options.quiet_minutes
    if not minutes:
        return Gate("quiet", "open", "not asked whether clients still use user_id")
    within_s = minutes * 60
    write = session.row("last_user_write")
    sessions = session.rows("user_id_sessions", within_s=within_s, own=OWN_STATEMENT)
    hidden = session.row("hidden_sessions").total
    unseen = (
        f"{count(hidden, 'session')} of other roles could not be looked at (GRANT "
        "pg_read_all_stats to see)"
        if hidden
        else None
    )
    busy = []
    ages = [each.ago_s for each in sessions]
    if write.ago_s < within_s:
        busy.append(
            f"a client wrote a user_id at {write.moment}"
            if write.seen
            else f"writes are watched only since {write.moment}"
        )
        ages.append(write.ago_s)
    busy += [
        f"pid {each.pid} ({each.application_name or 'unnamed'}) at {each.moment}: {each.query}"
        for each in sessions
    ]
    if not busy:
        found = f"nobody used user_id for {minutes:g} min" + (f"; {unseen}" if unseen else "")
        return Gate("quiet", "open", found, note=unseen)
    wait_s = max(0.0, within_s - min(ages))
    was_seen = write.seen or bool(sessions)
    within = f"in use within the last {minutes:g} min"
    what = (
        f"user_id was {within}: {listed(busy, separator='; ')}"
        if was_seen
        else f"user_id may have been {within}. Writes are watched only since {write.moment}"
    )
    return Gate(
        "quiet",
        "closed",
        what + (f". Also, {unseen}" if unseen else ""),
        "end or update those clients, and wait" if was_seen else "wait",
        opens_in_s=wait_s,
        facts={"wait_s": wait_s, "pids": [each.pid for each in sessions]},
    )


def _backup(session: Session, options: RunOptions) -> Gate:
    """Whether there is a backup, and which one."""
    if options.backup_confirmed is not None:
        return Gate("backup", "open", f"backup confirmed: {options.backup_confirmed.strip()}")
    hours = options.backup_max_age_hours
    valid = session.row("backup_for_contract", within_s=hours * 3600)
    if valid is not None:
        found = f"backup {valid.file} of {valid.taken_at:%Y-%m-%d %H:%M:%S %Z}"
        return Gate("backup", "open", found)
    last = session.row("last_backup", within_s=hours * 3600)
    if last is None:
        had = "memsync made none"
    else:
        why = f"older than {hours:g} h" if last.old else "from before contract was taken back"
        had = f"the last one, {last.file} of {last.moment}, is {why}"
    return Gate("backup", "closed", had, "memsync migrate backup")
