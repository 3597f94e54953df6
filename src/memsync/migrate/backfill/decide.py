"""Decides the persona of each (user, personality), once, before any message is filled.

The decisions are stored in memsync.persona_map, so that a later change of the settings does not
change them. This module decides what happens to users without a persona, and forgets decisions
whose persona was deleted since. The rules stand in decide.sql and in attribution/.
"""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from memsync.errors import GateClosed
from memsync.migrate.backfill.blocks import end_block, range_of_blocks
from memsync.migrate.options import RunOptions, Unresolved
from memsync.model.wording import count, listed
from memsync.stores.history.catalog import TABLE
from memsync.stores.history.exchanges import messages_without_persona
from memsync.stores.postgres import Session
from memsync.stores.postgres.ddl import OnlineDdl

_NAMED_MAX = 10
_CLEARED_BLOCKS = 8192


def require_resolved(users: Sequence[str], rows: int, options: RunOptions) -> None:
    """Stop if there are users without a persona; `rows` is how many messages they have.

    Raises: GateClosed naming the first of them.
    """
    if not users:
        return
    have = count(len(users), "user has", "users have")
    raise GateClosed(
        f"{have} no persona ({count(rows, 'message')}): neither a choice for the "
        f"personality nor a default. They are: {listed(users, _NAMED_MAX)}. Give them one and "
        f"type `{options.command()}` again, or make a default persona for each with "
        f"`{options.command(unresolved='create')}`; no message was changed",
        users=users,
        rows=rows,
    )


def freeze(ddl: OnlineDdl, options: RunOptions) -> None:
    """Decide every pair that is not decided yet.

    Raises: GateClosed for users without a persona under `fail`.
    """
    session = ddl.session
    # A decision whose persona was deleted would be filled in, and a standing key would refuse it.
    session.run("thaw_vanished")
    without = [row.user_id for row in session.rows("freeze_map")]
    if without and options.for_unresolved == "fail":
        first = messages_without_persona(session, limit=1)
        require_resolved([str(each) for each in without], first[0].total if first else 0, options)
    for user_id in without:
        _create_default_persona(ddl, user_id)
    if without:
        session.run("freeze_map")
    session.run("decide_since")
    session.run("analyze_decisions")


def decided_rows(session: Session) -> int:
    """How many messages the decisions are for."""
    return int(session.row("decided_rows").total)


def note_unresolved(session: Session, unresolved: Unresolved) -> None:
    """Store what this run does with users without a persona, because the sync triggers obey it."""
    session.run("note_unresolved", unresolved=unresolved)


def clear_vanished(ddl: OnlineDdl) -> None:
    """Forget decisions whose persona was deleted, and empty persona_id of their messages.

    A message that a client updates meanwhile may move to another block and be missed. The next pass
    clears it, or the validation of the foreign key fails.
    """
    session = ddl.session
    session.run("thaw_vanished")
    if not session.row("rows_of_vanished_personas").total:
        return
    for start in range(0, end_block(session), _CLEARED_BLOCKS):
        blocks = range_of_blocks(start, start + _CLEARED_BLOCKS)
        ddl.do(
            partial(session.run, "clear_vanished_personas", start=blocks[0], stop=blocks[1]),
            table=TABLE,
        )


def _create_default_persona(ddl: OnlineDdl, user_id: UUID) -> None:
    """Give one user a persona, in its own transaction: a client's lock delays this user only."""
    ddl.do(lambda: ddl.session.run("create_default_persona", user_id=user_id), table="users")
