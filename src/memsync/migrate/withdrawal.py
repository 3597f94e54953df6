"""Withdraws the default personas that memsync created, once a rollback has taken persona_id back.

A persona goes only if nothing uses it: no message, no setting, no other row of the app, no entry of
the outbox, no memory, and nobody has written into it. This module decides that, and says of every
other one why it stays. Where the memories cannot be read, none goes.
"""

from uuid import UUID

from memsync.errors import MemsyncError
from memsync.migrate.attribution import OpenMemories, places
from memsync.migrate.run import Run
from memsync.model.progress import Kind, Progress
from memsync.model.wording import count, listed
from memsync.settings import Settings
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.settings_tables import DEFAULTS
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Session, composed, sql

_NAMED_MAX = 10
_STAY = "default persona that memsync made stays", "default personas that memsync made stay"


def withdraw_personas(run: Run, settings: Settings, memories: OpenMemories | None) -> int:
    """Remove the created personas that nothing uses; tell of each other one why it stays.

    Returns how many were removed.

    Raises: StoreBusy.
    """
    session = run.session
    standing = [each.persona_id for each in session.rows("created_personas")]
    if not standing:
        return 0
    remembered = _remembered(standing, settings, memories)

    def withdraw() -> tuple[int, list[str]]:
        session.run("lock_created_personas")
        # Read under the lock: the memories took their time, and clients went on meanwhile.
        created = session.rows("created_personas")
        why = _used(session) | remembered
        why |= {each.persona_id: "somebody wrote into it" for each in created if each.edited}
        why |= {each.persona_id: "the outbox has its memory" for each in created if each.awaited}
        going = [each.persona_id for each in created if each.persona_id not in why]
        _remove(session, going)
        return len(going), [
            f"{each.persona_id} of user {each.user_id} ({why[each.persona_id]})"
            for each in created
            if each.persona_id in why
        ]

    removed, stay = run.ddl.do(withdraw, table="personas")
    if stay:
        said = count(len(stay), *_STAY)
        run.tell(Progress(Kind.NOTE, f"{said}: {listed(stay, _NAMED_MAX)}"))
    return removed


def _remembered(
    personas: list[UUID], settings: Settings, memories: OpenMemories | None
) -> dict[UUID, str]:
    """The personas of which there are memories, or may be."""
    try:
        if memories is None:
            return dict.fromkeys(personas, "no memories were read, so it may have some")
        ltm = LongTermMemory(memories(), settings)
        having = ltm.remembered(personas)
    except MemsyncError as error:
        return dict.fromkeys(personas, f"the memories cannot be read: {error.message}")
    return dict.fromkeys(having, "it has memories")


def _used(session: Session) -> dict[UUID, str]:
    """The personas that the app's tables hold, besides as the default of their user.

    A persona that no longer stands may be among them, where no key forbids that.
    """
    places_now = places(Catalog.read(session).settings)
    lent = session.rows_with(places_now, "created_personas_lent")
    used = {row.persona_id: "another user's default" for row in lent}
    for place in session.rows("columns_with_personas"):
        asked = composed(
            "created_personas_used",
            relation=sql.SQL(place.relation),
            column=sql.Identifier(place.column),
        )
        for row in session.connection.execute(asked).fetchall():
            used[row.persona_id] = f"{place.relation}.{place.column} holds it"
    return used


def _remove(session: Session, ids: list[UUID]) -> None:
    settings = Catalog.read(session).settings
    if settings.has_column("users", "global_persona_id"):
        session.run("unset_created_defaults", ids=ids)
    if settings.has_table(DEFAULTS):
        session.run("unset_new_created_defaults", ids=ids)
    session.run("withdraw_personas", ids=ids)
