"""The gates of contract: what must hold before user_id is dropped.

There are three, in this order: the proof (every row's persona is right), quiet (no client still
works by user_id), and the backup (there is one). This module writes only to memsync.runs. A trigger
notes when any client last named user_id in an INSERT (expand/sync_triggers.sql). Reads, and an
UPDATE or DELETE by user_id, are seen only as the last statement of a session that is connected now.
Index statistics are not used, because they also count cascades, and reads that need only the first
columns of an index. Neither is pg_stat_statements, because it does not say when a statement ran.
"""

from datetime import timedelta

from memsync.errors import GateClosed
from memsync.migrate import runs
from memsync.migrate.contract.proof import prove
from memsync.migrate.options import RunOptions
from memsync.model.progress import Kind, Progress, Tell
from memsync.model.wording import listed
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import OWN_STATEMENT, Session


def require_open(session: Session, options: RunOptions, tell: Tell) -> None:
    """Check every gate; note in the record of runs that they are open, and why.

    For a contract that passed them and was cut short, only the proof is repeated.
    Raises: GateClosed for the first gate that is closed.
    """
    catalog = Catalog.read(session)
    # Without filled user_ids there is nothing to recompute from: a way back was cut short, and
    # every row was proven before the contract that it takes back.
    if catalog.has_users:
        tell(Progress(Kind.PROOF, "verify"))
        _require_proof(session, catalog)
    if Phase.CONTRACT in catalog.halfway and runs.contract_was_begun(session):
        note = "finishes a contract that was cut short"
    else:
        quiet = _require_quiet(session, options.quiet_minutes, tell)
        note = f"{quiet}; {_require_backup(session, options)}"
    runs.note_gates_passed(session, note)


def _require_proof(session: Session, catalog: Catalog) -> None:
    proof = prove(session, catalog)
    if not proof.ok:
        raise GateClosed(
            "contract may not start, the proof failed: "
            + "; ".join(proof.problems)
            + ". See `memsync migrate verify`; user_id is still there",
            problems=list(proof.problems),
        )


def _require_quiet(session: Session, minutes: float, tell: Tell) -> str:
    """Stop while clients work by user_id; return how it is known that they do not."""
    if not minutes:
        return "not asked whether clients still use user_id"
    within_s = minutes * 60
    write = session.row("last_user_write")
    sessions = session.rows("user_id_sessions", within_s=within_s, own=OWN_STATEMENT)
    hidden = session.row("hidden_sessions").total
    unseen = (
        f"{hidden} sessions of other roles could not be looked at (GRANT pg_read_all_stats to see)"
        if hidden
        else ""
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
        if unseen:
            tell(Progress(Kind.NOTE, f"note: {unseen}"))
        return f"nobody used user_id for {minutes:g} min" + (f"; {unseen}" if unseen else "")
    wait_s = max(0.0, within_s - min(ages))
    left = timedelta(seconds=round(wait_s))
    raise GateClosed(
        f"contract may not start, user_id was in use within the last {minutes:g} min: "
        + listed(busy, separator="; ")
        + (f". Also, {unseen}" if unseen else "")
        + f". End or update those clients, wait {left}, and run again; or skip this gate with "
        "`memsync migrate run --quiet-minutes 0`. user_id is still there",
        wait_s=wait_s,
        pids=[each.pid for each in sessions],
    )


def _require_backup(session: Session, options: RunOptions) -> str:
    """Stop unless there is a backup; return which one."""
    if options.backup_confirmed is not None:
        return f"backup confirmed: {options.backup_confirmed.strip()}"
    hours = options.backup_max_age_hours
    valid = session.row("backup_for_contract", within_s=hours * 3600)
    if valid is not None:
        return f"backup {valid.file} of {valid.taken_at:%Y-%m-%d %H:%M:%S %Z}"
    last = session.row("last_backup", within_s=hours * 3600)
    if last is None:
        had = "memsync made none"
    else:
        why = f"older than {hours:g} h" if last.old else "from before contract was taken back"
        had = f"the last one, {last.file} of {last.moment}, is {why}"
    raise GateClosed(
        f"contract may not start without a backup: {had}. Make one with `memsync migrate backup` "
        "and run again, or say which one you have with "
        "`memsync migrate run --backup-confirmed TEXT`. user_id is still there"
    )
