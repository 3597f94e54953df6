"""The phases in the order in which they run; the way back takes them in reverse."""

from memsync.migrate.backfill import BACKFILL
from memsync.migrate.contract import CONTRACT
from memsync.migrate.expand import EXPAND
from memsync.migrate.isolate import ISOLATE
from memsync.migrate.redesign import REDESIGN
from memsync.migrate.run import PhaseWork

PHASES: tuple[PhaseWork, ...] = (ISOLATE, REDESIGN, EXPAND, BACKFILL, CONTRACT)
