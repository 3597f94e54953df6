"""Keeps other writers of memsync's out while a repair, its undo or a change of layout writes."""

import contextlib
from collections.abc import Iterator

from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.ledger import Ledger
from memsync.stores.ltm.record import require_layout
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.locks import LockKey, exclusive, held
from memsync.stores.postgres.session_settings import make_commits_durable

RELAY_WAIT_S = 30.0
"""How long a repair waits for the relay to finish what it is at."""


@contextlib.contextmanager
def repairing(
    postgres: Postgres, ltm: LongTermMemory, *, relay_wait_s: float | None = None
) -> Iterator[Session]:
    """A session that holds the locks of repairs and of the relay, so that neither runs beside it.

    Both end with the session. Whoever writes begins each batch with a statement on it: a session
    that was lost fails there, before the vector store is written. A write that was under way when
    it was lost may still come. The relay finds its lock taken meanwhile, leaves the outbox as it
    is, and tries again later. What a repair that ended early was about to remove is forgotten.
    The layout of `ltm` is still the one in force, and only who has the lock of repairs changes it.
    Commits of the session are on disk, because the vector store is changed on the strength of it.

    Raises: StoreBusy when another repair runs, or a relay goes on for `relay_wait_s`, by default
    `RELAY_WAIT_S`; SchemaMismatch when the layout was changed meanwhile.
    """
    wait_s = RELAY_WAIT_S if relay_wait_s is None else relay_wait_s
    with (
        exclusive(postgres, LockKey.REPAIR, "repair") as session,
        held(session, LockKey.RELAY, "relay or repair", wait_s=wait_s),
    ):
        require_layout(session, ltm.layout, ltm.label)
        make_commits_durable(session)
        Ledger(session).forget_leaving()
        yield session
