"""The owners of personas, page by page."""

from __future__ import annotations

from uuid import UUID

import pytest

from memsync.demo.world import legacy_schema
from memsync.stores.history.owners import Owners, owners_page
from memsync.stores.postgres import Postgres

PEOPLE = """
INSERT INTO users (id, discord_id, username, updated_at)
SELECT gen_random_uuid(), n, n, now() FROM generate_series(1, 20) n;
INSERT INTO personas (id, name, content, owner_id, updated_at)
SELECT gen_random_uuid(), '', '', id, now() FROM users, generate_series(1, 2);
INSERT INTO personas (id, name, content, owner_id, updated_at)
SELECT gen_random_uuid(), '', '', NULL, now() FROM generate_series(1, 15);
"""


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_each_owner_is_on_one_page(database: str, limit: int) -> None:
    """In the order of the ids, with all personas. One without an owner is its own."""
    with Postgres.open(database) as postgres, postgres.session() as session:
        session.run_script(legacy_schema())
        session.run_script(PEOPLE)
        found: Owners = {}
        after = UUID(int=0)
        while page := owners_page(session, after, limit):
            assert len(page) <= limit
            assert not found.keys() & page.keys()
            assert list(page) == sorted(page)
            found |= page
            after = max(page)
        whole = session.connection.execute("SELECT coalesce(owner_id, id), id FROM personas")
        expected: Owners = {}
        for owner, persona in sorted(whole.fetchall()):
            expected.setdefault(owner, []).append(persona)
        assert expected == found
        assert 35 == len(found)
