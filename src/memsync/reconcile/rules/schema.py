"""MSS: whether schema, indexes and collections on both sides are what the code expects."""

from memsync.reconcile.findings import Grade, Repair, Severity
from memsync.reconcile.rules.base import StateRule


class MigrationBehind(StateRule):
    """The history is not fully migrated.

    Why it matters: until the last phase both versions of the app are served by a trigger, and the
    way forward is open.
    Repair: run the rest of the migration.
    """

    code, name = "MSS001", "migration-behind"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync migrate run"


class InvalidIndex(StateRule):
    """An index of the history is INVALID: its build was cut short.

    Why it matters: every write pays for it and no read uses it.
    Repair: the migration rebuilds its own; others are for the app's operator to rebuild.
    """

    code, name = "MSS005", "invalid-index"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync migrate run"


class MissingIndex(StateRule):
    """An index that reading by persona needs is not there.

    Why it matters: every read of a thread scans the table.
    Repair: the migration builds it.
    """

    code, name = "MSS006", "missing-index"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync migrate run"


class MissingPayloadIndex(StateRule):
    """A payload key that queries filter by is not indexed. Snapshots and moves lose indexes.

    Why it matters: every recall scans the collection, or is refused under strict mode.
    Repair: the relay makes missing indexes before it writes.
    """

    code, name = "MSS007", "missing-payload-index"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    severity = Severity.WARNING
    next_command = "memsync sync run"


class LegacyLayout(StateRule):
    """A collection of the deployed layout (one per persona) still holds memories.

    Why it matters: recall looks in the shared collection only; a collection each does not scale
    past about a thousand.
    Repair: its memories are repaired one by one (see the findings about them); then, empty, it is
    removed.
    """

    code, name = "MSS011", "legacy-layout"
    severity, repair = Severity.WARNING, Repair.RETIRE
