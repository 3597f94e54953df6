"""The preflight: everything that would stop a run half way, looked at before anything is changed.

Decides which checks there are and in which order, and that a run is refused while a blocker stands
in the way of one of its phases. Reads only; `plan` shows what this finds.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from memsync.errors import GateClosed
from memsync.migrate.checks import Check, State
from memsync.migrate.preflight import history, server
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Session

LONG_S = 60.0
"""From this age on a transaction is long."""


def preflight(session: Session, catalog: Catalog, *, older_s: float = LONG_S) -> tuple[Check, ...]:
    """Every check that the catalog answers: quick, however long the history is."""
    found = (
        server.server(session),
        server.pooler(session),
        server.privileges(session),
        server.visibility(session),
        server.disk(session),
        server.transactions(session, older_s),
        server.prepared(session),
        server.replicas(session),
        history.replication(session),
        history.shape(session, catalog),
        history.indexes(session, catalog, server.TABLES),
        history.dependents(session, catalog),
        history.settings(session, catalog),
        history.triggers(session, catalog),
        history.rules(session),
        history.functions(session, catalog),
        history.grants(session, catalog),
        history.referrers(session),
        server.event_triggers(session),
        history.orm(session),
        history.vacuum(session),
        server.limits(session),
    )
    ahead = set(Phase) - catalog.done
    return tuple(_as_of_now(check, ahead) for check in found)


def data_checks(session: Session, catalog: Catalog) -> tuple[Check, ...]:
    """The checks that read the messages themselves: they take as long as the history is."""
    return history.users(session, catalog), history.personas(session, catalog)


def blocking(checks: Sequence[Check], ahead: Collection[Phase] = tuple(Phase)) -> list[Check]:
    """The blockers that stop one of the phases `ahead`."""
    return [
        check
        for check in checks
        if check.state is State.BLOCKER and not set(ahead).isdisjoint(check.phases)
    ]


def require_no_blockers(checks: Sequence[Check], ahead: Collection[Phase] = tuple(Phase)) -> None:
    """Refuse a run of the phases `ahead` before it changes anything.

    Raises: GateClosed naming every blocker and what to do.
    """
    if stops := blocking(checks, ahead):
        said = "; ".join(f"{check.name}: {check.found} (do: {check.next})" for check in stops)
        raise GateClosed(
            f"the run may not start, {len(stops)} checks stand in its way: {said}. "
            "Nothing was changed; `memsync migrate plan` shows all checks",
            blockers=[check.name for check in stops],
        )


def _as_of_now(check: Check, ahead: Collection[Phase]) -> Check:
    """A blocker of phases that are done stops nobody any more."""
    if check.state is State.BLOCKER and not blocking([check], ahead):
        return replace(check, state=State.WARNING, phases=())
    return check
