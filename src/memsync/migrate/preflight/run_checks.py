"""Runs the preflight: looks for what would stop a run half way, before anything is changed.

This module lists the checks in their order, and refuses a run while a blocker stops one of its
phases. It reads only; `plan` shows the results.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from memsync.errors import GateClosed
from memsync.migrate.attribution import UnresolvedUser
from memsync.migrate.checks import Check, State
from memsync.migrate.options import RunOptions
from memsync.migrate.preflight import decisions, history, server
from memsync.migrate.redesign import Prospect
from memsync.model.wording import count
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Session

LONG_S = 60.0
"""A transaction that has been open for longer is long."""


def preflight(session: Session, catalog: Catalog, *, older_s: float = LONG_S) -> tuple[Check, ...]:
    """Every check that the catalog answers: quick, however large the history is."""
    found = (
        server.server(session),
        server.pooler(session),
        server.privileges(session),
        server.visibility(session),
        server.disk(session),
        server.transactions(session, older_s),
        server.prepared(session),
        server.replicas(session),
        server.commits(session),
        server.publications(session),
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


def data_checks(
    session: Session,
    catalog: Catalog,
    unresolved: Sequence[UnresolvedUser],
    ahead: Prospect | None,
    options: RunOptions,
) -> tuple[Check, ...]:
    """The checks of the messages themselves: their time grows with the history.

    `unresolved` are the users for whom neither settings nor evidence say a persona. The decisions
    of `options` settle what would stop a run without them.
    """
    return (
        decisions.users(catalog, unresolved, ahead, options),
        decisions.personas(session, catalog, ahead, options),
        decisions.existing(session, catalog, options),
    )


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
            f"the run may not start, {count(len(stops), 'check stands', 'checks stand')} in its "
            f"way: {said}. Nothing was changed; `memsync migrate plan` shows all checks",
            blockers=[check.name for check in stops],
        )


def _as_of_now(check: Check, ahead: Collection[Phase]) -> Check:
    """The check, as a warning if it is a blocker of phases that are done already."""
    if check.state is State.BLOCKER and not blocking([check], ahead):
        return replace(check, state=State.WARNING, phases=())
    return check
