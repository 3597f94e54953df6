"""Finds psql, and marks the tests that need it."""

from __future__ import annotations

import os
import shutil

import pytest

from memsync.stores.postgres import pg_dump as dump

PSQL = shutil.which("psql", path=os.pathsep.join([os.environ["PATH"], *map(str, dump._folders())]))
"""psql on PATH, else in the folders searched for pg_dump, the embedded wheel's last."""

needs_psql = pytest.mark.skipif(PSQL is None, reason="no psql, nor the embedded wheel")
