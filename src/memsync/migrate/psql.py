"""Writes the migration as a script for psql, for operators who do not run memsync itself.

It takes a plan, and picks the parts of the script in `sql/` that are still to run. A part too many
does no harm, because the script reads the catalog too. This module runs nothing.
"""

import re

from memsync.migrate.plan import Plan
from memsync.migrate.shipped import shipped
from memsync.stores.history.phases import Phase

ALL_IN_ONE = "migrate-persona-all-in-one.sql"

_MARK = re.compile(r"^-- ==== (\w+) ====$", re.MULTILINE)
_HEAD = """\
-- The work of `memsync migrate run` on this database, for psql. The database is {stage};
-- ahead: {ahead}.
--
--     psql "$URL" -f THIS_FILE -v unresolved=create -v backup_confirmed='which one'
--
-- Nothing was run. memsync itself does the same, and checks and reports more.
"""


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
