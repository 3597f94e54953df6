"""Checks a migrated database: a checklist as one report, with figures and what corrects a failure.

This module decides which checks are due at which stage. contract/proof.py proves every row, and the
report includes its result. Contract needs the proof alone, because all other checks are part of it
or read the catalog, which each phase reads itself. While a run is at work, what it will do is not
due yet.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from memsync.migrate import prisma, runs
from memsync.migrate.attribution import OpenMemories, compare, fragments, unresolved_users
from memsync.migrate.attribution.choice import CHECK
from memsync.migrate.checks import Check, State, failed, fine, not_applicable
from memsync.migrate.contract.proof import Verification, prove
from memsync.migrate.options import EvidenceUse, RunOptions
from memsync.migrate.standing import Standing
from memsync.model.wording import count
from memsync.settings import Settings
from memsync.stores.history.catalog import (
    IDENTITY_TRIGGER,
    PERSONA_INDEX,
    RETRIEVAL_INDEX,
    TABLE,
    Catalog,
    reading,
)
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres, Session

_SAMPLES = 5


def verify(
    postgres: Postgres,
    settings: Settings | None = None,
    memories: OpenMemories | None = None,
    *,
    use: EvidenceUse | None = None,
) -> Verification:
    """Prove the history as it is now, and go through the checklist. Reads only, in one snapshot.

    `memories` opens the store of the memories, which are compared with the messages while these
    name their user; None is a store that nobody named. They are compared right after the snapshot,
    because reading them may take long. `use` is the option `evidence` of a run; without it the last
    run's holds.

    Raises: SchemaMismatch when this is not the app's database.
    """
    with postgres.session() as session, reading(session):
        catalog = Catalog.read(session)
        now = Standing.read(session, catalog, RunOptions(evidence=use))
        chosen = use or runs.decisions(session).get("evidence")
        proof = prove(session, catalog)
        if "persona_id" not in catalog.columns:
            return _judged(replace(proof, checks=_not_begun(session, catalog, now)), now)
        rows = _of_rows(session, catalog, proof, now)
        rest = (*_of_users(session, catalog), *_of_schema(session, catalog, proof, now))
        ok = proof.ok and not _failures((*rows, *rest))
        applied = _applied(session, catalog, ok=ok)
    evidence, complete = _evidence(postgres, catalog, chosen, settings or Settings(), memories)
    # Failures among the rows are in the proof's problems already, row by row.
    more = _failures((evidence, *rest))
    found = replace(
        proof,
        ok=ok and not more,
        problems=(*proof.problems, *more),
        checks=(*rows, evidence, *rest, *applied),
        complete=complete,
    )
    return _judged(found, now)


def _failures(checks: Sequence[Check]) -> list[str]:
    return [f"{each.name}: {each.found}" for each in checks if each.state is State.FAILED]


def _evidence(
    postgres: Postgres,
    catalog: Catalog,
    chosen: EvidenceUse | None,
    settings: Settings,
    memories: OpenMemories | None,
) -> tuple[Check, bool]:
    """The check of the memories, and whether it could be made."""
    if not catalog.has_users:
        return not_applicable(CHECK, "there is no user_id any more"), True
    # A session of its own, not the pool's, because its temporary tables must go with it.
    session = postgres.dedicated()
    with contextlib.closing(session.connection):
        return compare(session, chosen, settings, memories)


def _fill_again(catalog: Catalog, options: RunOptions) -> str:
    """The run that fills and builds what is missing, and takes the database to no later phase."""
    return options.command(to=Phase.BACKFILL if "user_id" in catalog.columns else Phase.CONTRACT)


def _judged(proof: Verification, now: Standing) -> Verification:
    """The report; while a run is at work, what a run mends is not due yet, and no problem."""
    run = now.run
    if run.state == "idle" or proof.ok:
        return proof
    again = now.options.command().partition(" --")[0]
    at_work = f"a run is {run.state} (pid {run.pid})"
    checks = tuple(
        not_applicable(each.name, f"{each.found}; {at_work}")
        if each.state is State.FAILED and again in (each.next or "")
        else each
        for each in proof.checks
    )
    wrong = [each for each in proof.problems if each.startswith("message ")]
    return replace(
        proof, problems=(*wrong, *_failures(checks)), checks=checks, unfinished=at_work, ok=False
    )


def _not_begun(session: Session, catalog: Catalog, now: Standing) -> tuple[Check, ...]:
    first = now.options.command(to=Phase.BACKFILL)
    return (
        failed("no NULL persona_id", f"{TABLE} has no persona_id yet", first),
        _resolved(session, catalog, now.options),
    )


def _of_rows(
    session: Session, catalog: Catalog, proof: Verification, now: Standing
) -> tuple[Check, ...]:
    """The checks of the messages, by the proof."""
    nulls, unknown = proof.null_persona_ids, proof.unknown_persona_ids
    used = count(proof.unique_personas, "persona")
    again = _fill_again(catalog, now.options)
    return (
        failed("no NULL persona_id", f"{nulls:,} of {count(proof.rows_total, 'message')}", again)
        if nulls
        else fine("no NULL persona_id", f"0 of {count(proof.rows_total, 'message')}"),
        _resolved(session, catalog, now.options),
        failed(
            "every persona exists",
            f"{count(unknown, 'message has', 'messages have')} one that does not",
            again
            if "user_id" in catalog.columns
            else f"restore those personas from a backup, or delete their messages; then {again}",
        )
        if unknown
        else fine("every persona exists", f"{used} in use, all there"),
        _recomputed(catalog, proof),
        _owners(session, catalog),
    )


def _resolved(session: Session, catalog: Catalog, options: RunOptions) -> Check:
    name = "every user has a persona"
    if "user_id" not in catalog.columns:
        return not_applicable(name, "there is no user_id any more")
    without = unresolved_users(session, fragments(catalog))
    if not without:
        return fine(name, "every user with open messages has one")
    named = ", ".join(
        f"{user.user_id} ({count(user.rows, 'message')})" for user in without[:_SAMPLES]
    )
    return failed(
        name,
        f"{count(len(without), 'user has', 'users have')} neither a choice nor a default: {named}",
        f"give them one, or {options.command(to=Phase.BACKFILL, unresolved='create')}",
    )


def _recomputed(catalog: Catalog, proof: Verification) -> Check:
    name = "every row recomputed"
    if not proof.proven:
        why = "user_id" if "user_id" not in catalog.columns else "sync trigger"
        return not_applicable(name, f"there is no {why} to recompute from")
    if proof.wrong_persona_ids:
        return failed(
            name,
            f"{count(proof.wrong_persona_ids, 'message has', 'messages have')} another persona",
            _mend(proof.wrong_ids),
        )
    rows = proof.rows_total - proof.null_persona_ids
    outdated = count(proof.decisions_outdated, "pair keeps", "pairs keep")
    drift = f"; {outdated} the persona from before a change of settings"
    return fine(
        name,
        f"all {rows:,} that have a persona, as the settings say"
        + (drift if proof.decisions_outdated else ""),
    )


def _mend(rows: Sequence[str]) -> str:
    """SQL by which the sync trigger decides the rows again, for the users that they have now."""
    # Text for the operator; memsync does not run it. The ids come from the database.
    some = f"ANY ('{{{','.join(map(str, rows))}}}')"
    return (
        f"BEGIN; DELETE FROM memsync.row_archive WHERE history_id = {some}; "  # noqa: S608
        f"UPDATE {TABLE} SET persona_id = NULL WHERE id = {some}; COMMIT"
    )


def _owners(session: Session, catalog: Catalog) -> Check:
    name = "personas are their users' own"
    if not catalog.has_users or not catalog.has_own_table("persona_map"):
        return not_applicable(name, "there is no user_id and no decision to compare with")
    rows = session.rows("verify_owners", limit=_SAMPLES)
    if not rows:
        return fine(name, "all are, or a setting says otherwise")
    named = "; ".join(
        f"message {row.id} of user {row.user_id} has persona {row.persona_id} of user "
        f"{row.owner_id or 'nobody'}"
        for row in rows
    )
    return failed(
        name,
        f"{count(rows[0].total, 'is', 'are')} not, and no setting says so: user_id was changed "
        f"after the fill, or the persona is wrong. {named}",
        f"where user_id is right: {_mend([row.id for row in rows])}",
    )


def _of_users(session: Session, catalog: Catalog) -> tuple[Check, ...]:
    """Counts per user, at the freeze and now."""
    name, silent = "counts per user", "every decision is used"
    if not catalog.has_own_table("persona_map"):
        return (not_applicable(name, "nothing is decided yet"),)
    if not catalog.has_users and "user_id" in catalog.columns:
        return (not_applicable(name, "user_id is half filled: the way back was cut short"),)
    speaker = "speaker_column" if catalog.has_users else "speaker_owner"
    (counts,) = session.rows_with({"speaker": speaker}, "verify_user_counts")
    if not counts.pairs:
        return (
            not_applicable(name, "no decision is kept: none was taken, or the archive was removed"),
        )
    fewer = count(counts.users_fewer, "user has", "users have")
    said = (
        f"{count(counts.users, 'user')} had {count(counts.rows_then, 'message')} at the freeze; "
        f"{counts.rows_now:,} of these are there now"
        + (f". {fewer} fewer, because some were deleted" if counts.users_fewer else "")
    )
    pairs = count(counts.pairs, "pair has", "pairs have")
    used = f"{counts.pairs - counts.pairs_silent:,} of {pairs} messages"
    return (
        failed(
            name,
            f"users gained messages from before the freeze: {'; '.join(counts.more[:_SAMPLES])}",
            "find out who changed user_id or a persona's owner; `memsync migrate status` and "
            "sql/ops/who-writes-user-id.sql help",
        )
        if counts.more
        else fine(name, said),
        fine(silent, used + ("; the others' were deleted" if counts.pairs_silent else "")),
    )


def _of_schema(
    session: Session, catalog: Catalog, proof: Verification, now: Standing
) -> tuple[Check, ...]:
    """The checks of the catalog, where they are due."""
    again = _fill_again(catalog, now.options)
    by_persona = "user_id" not in catalog.columns
    # The stage cannot tell: a backfilled database that lost its key or an index looks expanded.
    built = by_persona or (
        not proof.null_persona_ids
        and catalog.has_own_table("runs")
        and runs.backfill_stands(session)
    )
    return (
        fine("no user_id column", "it is gone")
        if by_persona
        else not_applicable("no user_id column", "contract drops it"),
        _not_null(catalog, again, by_persona=by_persona),
        _key(session, again) if built else not_applicable("foreign key", "it comes after the fill"),
        _indexes(catalog, again)
        if built
        else not_applicable("indexes", "they come after the fill"),
        _trigger(session, again, by_persona=by_persona),
    )


def _not_null(catalog: Catalog, again: str, *, by_persona: bool) -> Check:
    name = "persona_id NOT NULL"
    if catalog.columns["persona_id"]:
        return fine(name, "no message can lack one")
    return (
        failed(name, "it may be NULL", again)
        if by_persona
        else not_applicable(name, "contract sets it")
    )


def _key(session: Session, again: str) -> Check:
    keys = session.rows("verify_keys")
    if not keys:
        return failed("foreign key", "persona_id refers to nothing", again)
    if not any(key.valid for key in keys):
        return failed("foreign key", f"{keys[0].name} is NOT VALID", again)
    return fine("foreign key", next(f"{key.name}: {key.says}" for key in keys if key.valid))


def _indexes(catalog: Catalog, again: str) -> Check:
    wanted = (PERSONA_INDEX, RETRIEVAL_INDEX)
    broken = [
        f"{name} is {'INVALID' if name in catalog.indexes else 'not there'}"
        for name in wanted
        if not catalog.indexes.get(name)
    ]
    if broken:
        return failed("indexes", ", ".join(broken), again)
    # By their columns, because the second name is wider than a column of a terminal.
    columns = "channel_id, personality_id, persona_id, created_at, id"
    return fine("indexes", f"both stand: on persona_id; on {columns}")


def _trigger(session: Session, again: str, *, by_persona: bool) -> Check:
    name = "identity trigger"
    trigger = session.row("verify_trigger")
    if by_persona:
        if trigger is None:
            return fine(name, "it is gone, with user_id")
        return failed(
            name,
            "it still stands, though user_id is gone: every write fails",
            f"DROP TRIGGER {IDENTITY_TRIGGER} ON {TABLE}",
        )
    if trigger is None:
        return failed(
            name,
            "it is not there: messages are written without a persona",
            again,
        )
    if not trigger.fires:
        return failed(
            name,
            "it is disabled: messages are written without a persona",
            f"ALTER TABLE {TABLE} ENABLE TRIGGER {IDENTITY_TRIGGER}",
        )
    return fine(name, "it stands, and fires for every message that lacks an id")


def _applied(session: Session, catalog: Catalog, *, ok: bool) -> tuple[Check, ...]:
    """Whether everything is done; then what to record in Prisma's history, each a check."""
    name = "already applied"
    if catalog.stage is not Stage.CONTRACTED or not ok:
        return (not_applicable(name, f"the database is {catalog.stage}"),)
    done = fine(name, "everything is done; running again changes nothing")
    return done, *prisma.differences(session, catalog)
