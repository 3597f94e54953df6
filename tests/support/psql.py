"""psql, and which tests need it."""

from __future__ import annotations

import os
import shutil

import pytest

from memsync.stores.postgres import pg_dump as dump

PSQL = shutil.which("psql", path=os.pathsep.join([os.environ["PATH"], *map(str, dump._folders())]))
"""psql of PATH, else of where pg_dump is looked for, of the embedded wheel at last."""

needs_psql = pytest.mark.skipif(PSQL is None, reason="no psql, nor the embedded wheel")
