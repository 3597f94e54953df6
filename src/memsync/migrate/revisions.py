"""Alembic's side of the migration: finds the revisions, runs them up to the end of a phase.

Decides where the revisions are (inside the installed package, else in the checkout) and which
phase a revision belongs to (its file name says). Knows nothing of what they change.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from memsync.migrate.alchemy import lent
from memsync.stores.history.phases import Phase
from memsync.stores.postgres.ddl import OnlineDdl

_PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """Where the revisions are: the wheel's copy, or the checkout's folder.

    Raises: FileNotFoundError when neither is there.
    """
    for candidate in (_PACKAGE / "_migrations", _PACKAGE.parents[1] / "migrations"):
        if (candidate / "env.py").is_file():
            return candidate
    raise FileNotFoundError(f"memsync is installed without its migrations ({_PACKAGE})")


@cache
def revisions() -> dict[str, tuple[Phase, str]]:
    """Every revision in order: its id, its phase, and what it does in a line."""
    script = ScriptDirectory(str(folder()))
    found = {}
    for revision in reversed(list(script.walk_revisions())):
        phase = Path(revision.path).stem.split("_")[1]
        found[revision.revision] = (Phase(phase), revision.doc)
    return found


Steps = Mapping[str, Callable[[OnlineDdl], None]]
"""Work on rows that a revision calls by name, in its place between two changes of the schema."""


def upgrade(ddl: OnlineDdl, phase: Phase, steps: Steps) -> None:
    """Run the revisions of `phase`. Each looks at the catalog and does what is missing."""
    with _configured(ddl, steps) as config:
        # The version table follows the catalog, which a crash half way back, or a hand, may have
        # left anywhere: so a phase's revisions always run.
        command.stamp(config, _before(phase))
        command.upgrade(config, _last(phase))


def downgrade(ddl: OnlineDdl, phase: Phase, steps: Steps) -> None:
    """Take back the revisions of `phase`. Each looks at the catalog and undoes what is there."""
    with _configured(ddl, steps) as config:
        command.stamp(config, _last(phase))
        command.downgrade(config, _before(phase))


def _last(phase: Phase) -> str:
    return [name for name, (of, _) in revisions().items() if of is phase][-1]


def _before(phase: Phase) -> str:
    """The revision on which those of `phase` build; alembic calls the start of all `base`."""
    earlier = list(Phase)[: list(Phase).index(phase)]
    return _last(earlier[-1]) if earlier else "base"


@contextlib.contextmanager
def _configured(ddl: OnlineDdl, steps: Steps) -> Iterator[Config]:
    # IF NOT EXISTS would ask for CREATE on the database even where the schema stands.
    if not ddl.session.row("own_schema").there:
        ddl.run("CREATE SCHEMA IF NOT EXISTS memsync", table="users")
    config = Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    with lent(ddl.session) as connection:
        config.attributes.update(connection=connection, ddl=ddl, steps=steps)
        yield config
