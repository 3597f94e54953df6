"""Writes the migration as a script for psql, and finds the scripts that memsync ships.

It takes a plan, and picks the parts of the script in `sql/` that are still to run. A part too many
does no harm, because the script reads the catalog too. This module runs nothing.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from memsync.migrate.plan import Plan
from memsync.migrate.shipped import shipped
from memsync.stores.history.phases import Phase

ALL_IN_ONE = "migrate-persona-all-in-one.sql"

_MARK = re.compile(r"^-- ==== (\w+) ====$", re.MULTILINE)
_SENTENCE = re.compile(r".+?\.(?= |$)")
_HEAD = """\
-- The work of `memsync migrate run` on this database, for psql. The database is {stage};
-- ahead: {ahead}.
--
--     psql "$URL" -f THIS_FILE -v unresolved=create -v backup_confirmed='which one'
--
-- Nothing was run. memsync itself does the same, and checks and reports more.
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script for psql: its path in `folder` without `.sql`, and the first sentence about it."""

    name: str
    about: str
    folder: Path

    @property
    def text(self) -> str:
        """The script."""
        return (self.folder / f"{self.name}.sql").read_text(encoding="utf-8")


def scripts() -> tuple[Script, ...]:
    """The scripts that can be given to psql alone: the migration, then the queries of `ops`.

    Those in `steps` include the migration by a path, so they are run where they lie.
    """
    folder = shipped("sql", ALL_IN_ONE)
    paths = (folder / ALL_IN_ONE, *sorted((folder / "ops").glob("*.sql")))
    return tuple(
        Script(str(path.relative_to(folder).with_suffix("")), _about(path), folder)
        for path in paths
    )


def _about(path: Path) -> str:
    """The first sentence of the comment at the head of a script."""
    text = path.read_text(encoding="utf-8")
    head = [line.removeprefix("--").strip() for line in text.split("\n\\set")[0].splitlines()]
    found = _SENTENCE.match(" ".join(filter(None, head)))
    return found[0] if found else ""


def psql_script(plan: Plan) -> str:
    """The script for the phases ahead; only a comment when there are none."""
    ahead = [
        phase for phase in Phase if any(not step.done for step in plan.steps if step.phase is phase)
    ]
    head = _HEAD.format(stage=plan.stage, ahead=", ".join(ahead) or "nothing")
    if not ahead:
        return head
    start, *rest = _MARK.split((shipped("sql", ALL_IN_ONE) / ALL_IN_ONE).read_text())
    parts = dict(zip(rest[::2], rest[1::2], strict=True))
    # verify and back run only where `-v only=` names them.
    wanted = [*ahead, "verify", "back", "summary"]
    return head + "--\n" + start + "".join(f"-- ==== {each} ===={parts[each]}" for each in wanted)
