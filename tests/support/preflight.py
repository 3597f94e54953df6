"""The checks of the preflight on an app, and the assertion that one of them stops a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from memsync.errors import GateClosed
from memsync.migrate import Check
from memsync.migrate.preflight.run_checks import preflight
from memsync.stores.history.catalog import Catalog
from memsync.stores.postgres import Postgres

if TYPE_CHECKING:
    from support.app import App


def checks(app: App, older_s: float = 60.0) -> dict[str, Check]:
    """The checks of `migrate plan`, by name; transactions are long from `older_s` on."""
    with Postgres.open(app.url) as postgres, postgres.session() as session:
        quick = preflight(session, Catalog.read(session), older_s=older_s)
    named = {check.name: check for check in app.plan().checks}
    return named | {check.name: check for check in quick}


def assert_refused(app: App, name: str) -> None:
    """A run is refused by this check, with status 14, and leaves the database as it was."""
    before = app.catalog()
    with pytest.raises(GateClosed) as refused:
        app.run()
    assert [name] == refused.value.fields["blockers"]
    assert "Nothing was changed" in refused.value.message
    assert 14 == app.command("run", "--unresolved", "create")
    assert before == app.catalog()
