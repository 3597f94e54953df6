"""The lab, for tests of the library."""

import sys
from pathlib import Path

# pytest's importlib mode leaves the folder of all tests off the path; mypy has it there.
sys.path.append(str(Path(__file__).parents[1]))

from reconcile.lab import (
    any_lab,
    lab,
    migrated,
    open_lab,
    own_database,
    shared_database,
)

__all__ = ["any_lab", "lab", "migrated", "open_lab", "own_database", "shared_database"]
