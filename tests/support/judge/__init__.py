"""memsync as a system that an outside judge examines: the package agent-memory-integrity.

It asks for an adapter to a memory system, edits what the system keeps at rest, and then asks the
system whether everything is as it was. The edits are the judge's. The adapters here say how each
is made in Qdrant and in Postgres, and ask memsync's audit.
"""

from support.judge.adapter import Hand, Judged
from support.judge.ledger import LedgerStore
from support.judge.points import PointsStore
from support.judge.rows import RowsStore
from support.judge.table import table

__all__ = ["Hand", "Judged", "LedgerStore", "PointsStore", "RowsStore", "table"]
