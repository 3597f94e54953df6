"""Postgres: connections, statements by name, locks, DDL that clients do not feel, pg_dump.

Decides how memsync talks to a server; knows no table of the app. No other room imports psycopg.
"""

from psycopg import sql
from psycopg.errors import ForeignKeyViolation

from memsync.stores.postgres.connection import (
    OWN_STATEMENT,
    Postgres,
    Session,
    json_value,
    translated,
)
from memsync.stores.postgres.instance import instance_id
from memsync.stores.postgres.open import open_postgres
from memsync.stores.postgres.statements import statement

__all__ = [
    "OWN_STATEMENT",
    "ForeignKeyViolation",
    "Postgres",
    "Session",
    "instance_id",
    "json_value",
    "open_postgres",
    "sql",
    "statement",
    "translated",
]
