"""The fixtures of support.lab, for tests of the library."""

from support.lab import (
    any_lab,
    lab,
    migrated,
    open_lab,
    own_database,
    shared_database,
)

__all__ = ["any_lab", "lab", "migrated", "open_lab", "own_database", "shared_database"]
