"""Postgres: connections, statements by name, locks, DDL that blocks clients only briefly, pg_dump.

Decides how memsync talks to a server; knows no table of the app. No other package imports psycopg.
"""

from psycopg import sql
from psycopg.errors import ForeignKeyViolation, UndefinedColumn

from memsync.stores.postgres.connection import Postgres, TryAgain
from memsync.stores.postgres.driver_errors import translated
from memsync.stores.postgres.open import open_postgres
from memsync.stores.postgres.session import OWN_STATEMENT, Session, Statement, json_value
from memsync.stores.postgres.statements import composed, statement, statements_of

__all__ = [
    "OWN_STATEMENT",
    "ForeignKeyViolation",
    "Postgres",
    "Session",
    "Statement",
    "TryAgain",
    "UndefinedColumn",
    "composed",
    "json_value",
    "open_postgres",
    "sql",
    "statement",
    "statements_of",
    "translated",
]
