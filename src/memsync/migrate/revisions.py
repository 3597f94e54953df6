"""Runs a phase as its alembic revision, forward or back.

This module finds the revisions (inside the installed package, else in the checkout), and lends
alembic the session that holds the lock. It does not know what a phase changes: the revision calls
the phase, and alembic keeps its version table.
"""

import contextlib
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import sqlalchemy
from alembic import command, context
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.pool import StaticPool

from memsync.errors import StoreBusy
from memsync.migrate.run import Run
from memsync.migrate.shipped import shipped
from memsync.stores.history.catalog import own_schema_stands
from memsync.stores.history.phases import Phase, up_to
from memsync.stores.postgres import Session, statement, translated

_BASE = "base"
"""Alembic's word for the state before the first revision."""
_ENVIRONMENT = threading.Lock()


def _folder() -> Path:
    """Where the revisions are.

    Raises: FileNotFoundError when they are not installed.
    """
    return shipped("migrations", "env.py")


def upgrade(run: Run, phase: Phase) -> None:
    """Run the revision of `phase`. The phase reads the catalog and does what is missing."""
    with _configured(run) as config:
        # A crash or a manual change may have left any version in alembic's table. Stamping makes
        # the revision run always, because the phase itself reads the catalog.
        command.stamp(config, _before(phase), purge=True)
        command.upgrade(config, _revisions()[phase])


def downgrade(run: Run, phase: Phase) -> None:
    """Take back the revision of `phase`. The phase undoes what the catalog says is there."""
    with _configured(run) as config:
        command.stamp(config, _revisions()[phase], purge=True)
        command.downgrade(config, _before(phase))


def current_run() -> Run:
    """The run in which alembic calls a revision.

    Raises: SystemExit when alembic was not called by a run.
    """
    run = context.config.attributes.get("run")
    if not isinstance(run, Run):
        raise SystemExit("these revisions are run by `memsync migrate run`, not by alembic itself")
    return run


def lent_connection() -> sqlalchemy.Connection:
    """The connection over the run's session, for alembic's environment.

    Raises: SystemExit when alembic was not called by a run.
    """
    current_run()
    connection: sqlalchemy.Connection = context.config.attributes["connection"]
    return connection


@cache
def _revisions() -> dict[Phase, str]:
    """The revision of each phase, oldest first: a file's name ends in its phase."""
    script = ScriptDirectory(str(_folder()))
    found = reversed(list(script.walk_revisions()))
    return {Phase(Path(each.path).stem.rpartition("_")[2]): each.revision for each in found}


def _before(phase: Phase) -> str:
    """The revision before that of `phase`."""
    earlier = up_to(phase)[:-1]
    return _revisions()[earlier[-1]] if earlier else _BASE


@contextlib.contextmanager
def only_run_of_process() -> Iterator[None]:
    """Held for a whole run, because alembic keeps its environment in globals of the process.

    Raises: StoreBusy while another run of this process holds it.
    """
    if not _ENVIRONMENT.acquire(blocking=False):
        raise StoreBusy(
            "another migration runs in this process, and alembic serves one at a time. Run this "
            "one in a process of its own, or after the other; nothing was changed"
        )
    try:
        yield
    finally:
        _ENVIRONMENT.release()


@contextlib.contextmanager
def _configured(run: Run) -> Iterator[Config]:
    # Look first: IF NOT EXISTS needs CREATE on the database even where the schema exists.
    if not own_schema_stands(run.session):
        run.ddl.run(statement("create_own_schema"), table="users")
    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    with _lent(run.session) as connection:
        config.attributes.update(connection=connection, run=run)
        yield config


@contextlib.contextmanager
def _lent(session: Session) -> Iterator[sqlalchemy.Connection]:
    """A SQLAlchemy connection over the session's own: in autocommit, never closed by alembic."""
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: session.connection,
        poolclass=StaticPool,
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
    )
    # The engine is never disposed of, because that would close the session that holds the lock.
    with translated(session.label):
        try:
            with engine.connect() as connection:
                yield connection
        except sqlalchemy.exc.DBAPIError as error:
            # Raise the driver's own error, which SQLAlchemy only wraps.
            raise error.orig or error from None
