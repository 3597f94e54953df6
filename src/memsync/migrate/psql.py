"""The migration as a script for psql, for those who may not or will not run memsync on a database.

Decides which parts of the script in `sql/` are still to run, by the stage of the database. The
script itself looks at the catalog too, so that a part too many does no harm. Runs nothing.
"""

import re

from memsync.migrate.plan import Plan
from memsync.migrate.shipped import shipped
from memsync.stores.history.phases import Phase

ALL_IN_ONE = "migrate-persona-all-in-one.sql"

_MARK = re.compile(r"^-- ==== (\w+) ====$", re.MULTILINE)
_HEAD = """\
-- What `memsync migrate run` would do to this database, for psql. It is {stage};
-- ahead: {ahead}.
--
--     psql "$URL" -f THIS_FILE -v unresolved=create -v backup_confirmed='which one'
--
-- Nothing was run. memsync does the same, and asks and says more while it does.
"""


def psql_script(plan: Plan) -> str:
    """The script that does what is ahead; only a comment when nothing is."""
    ahead = [
        phase for phase in Phase if any(not step.done for step in plan.steps if step.phase is phase)
    ]
    head = _HEAD.format(stage=plan.stage, ahead=", ".join(ahead) or "nothing")
    if not ahead:
        return head
    start, *rest = _MARK.split((shipped("sql", ALL_IN_ONE) / ALL_IN_ONE).read_text())
    parts = dict(zip(rest[::2], rest[1::2], strict=True))
    wanted = [*ahead, "summary"]
    return head + "--\n" + start + "".join(f"-- ==== {each} ===={parts[each]}" for each in wanted)
