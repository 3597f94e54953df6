"""Roles with few grants, and the app as one of them sees it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString
from uuid import uuid4

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.app import App

APP_GRANTS: tuple[LiteralString, ...] = (
    "GRANT USAGE ON SCHEMA public TO {}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}",
)
LIBRARY_GRANTS: tuple[LiteralString, ...] = (
    "GRANT USAGE ON SCHEMA memsync TO {}",
    "GRANT SELECT, INSERT ON memsync.outbox TO {}",
)
OWNER_GRANTS: tuple[LiteralString, ...] = (
    "GRANT ALL ON SCHEMA public TO {}",
    "DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r'"
    " AND relnamespace = 'public'::regnamespace LOOP"
    " EXECUTE format('ALTER TABLE %s OWNER TO {}', t); END LOOP; END $$",
)


def reader_grants() -> list[str]:
    """The grants that docs/operate.md names for the role of cron."""
    lines = (Path(__file__).parents[2] / "docs" / "operate.md").read_text().splitlines()
    named = [each for each in lines if each.startswith("GRANT") and "memsync_reader" in each]
    return [each.replace("memsync_reader", "{}") for each in named]


@contextmanager
def role(app: App, *grants: LiteralString) -> Iterator[str]:
    """Create a role with only these grants; its URL of the app's database."""
    name = f"memsync_role_{uuid4().hex[:12]}"
    with app.connected() as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(name))
        )
        for grant in grants:
            connection.execute(sql.SQL(grant).format(sql.Identifier(name)))
        try:
            facts = psycopg.conninfo.conninfo_to_dict(app.url)
            port = f"&port={facts['port']}" if "port" in facts else ""
            yield f"postgresql://{name}:secret@/{facts['dbname']}?host={facts['host']}{port}"
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def at_url(app: App, url: str) -> App:
    return type(app)(url, app.world)
