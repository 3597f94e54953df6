"""The fixtures of support.lab, for tests of reconcile, and those of a change of layout."""

from functools import partial

import pytest

from support.lab import (
    STORES,
    Lab,
    any_lab,
    lab,
    migrated,
    open_lab,
    own_database,
    shared_database,
)
from support.relayout import EMBEDDER, deploy

__all__ = ["any_lab", "lab", "migrated", "open_lab", "own_database", "shared_database"]


@pytest.fixture(params=STORES)
def deployed(request: pytest.FixtureRequest, open_lab: partial[Lab]) -> Lab:
    """Each kind of memory that an app may have, clean in its own layout."""
    return deploy(open_lab(request.param, layout="per-persona", embedder=EMBEDDER))


@pytest.fixture
def quick(open_lab: partial[Lab]) -> Lab:
    """The same in memory, for tests of one fact."""
    return deploy(open_lab("memory", layout="per-persona", embedder=EMBEDDER))
