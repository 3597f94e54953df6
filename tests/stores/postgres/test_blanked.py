"""No message repeats a literal of another session's statement: it may be people's words."""

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from memsync.stores.postgres import Session
from memsync.stores.postgres.statements import load
from support.app import App, app, new_app, world, world_template

__all__ = ["app", "new_app", "world", "world_template"]

WORDS = "Canary7Xyzzy"


def blanked(database: str, query: str) -> str:
    """What is shown of a session's statement."""
    expression = sql.SQL(load()["blanked_query"].sql)
    text = sql.SQL("SELECT {} FROM (VALUES (%s::text)) a(query)").format(expression)
    with psycopg.connect(database) as connection:
        (shown,) = connection.execute(text, [query]).fetchone() or ()
    return str(shown)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("SELECT 1", "SELECT 1"),
        ("SELECT a -> $1 - 2 / 3 -- a note\n, b", "SELECT a -> $1 - 2 / 3 -- a note\n, b"),
        ("/* web */ SELECT 'W', 'W''W W' AS b, ''", "/* web */ SELECT '...', '...' AS b, '...'"),
        ("SELECT 'say \"W', \"b\", 'W'", "SELECT '...', \"b\", '...'"),
        ("SELECT \"it's\" || 'W'", "SELECT \"it's\" || '...'"),
        ("SELECT 'C:\\\\', E'\\nW'", "SELECT '...', E'...'"),
        ("SELECT E'it\\'s W', 'W'", "SELECT E..."),
        ("SELECT 'C:\\', 'W'", "SELECT ..."),
        ("SELECT $$W$$, 1", "SELECT ..."),
        ("SELECT $a$W $$ W$a$, 'W'", "SELECT ..."),
        ("SELECT 1, 'W W", "SELECT 1, ..."),
        ("SELECT \"a W", "SELECT ..."),
        ("SELECT 1 -- don't\n, 'W'", "SELECT 1 ..."),
        ("SELECT 1 /* it's */, 'W'", "SELECT 1 ..."),
        ("SELECT /* /* */ ' */ 'W'", "SELECT ..."),
        ("SELECT '\n\nW' \n, '--', '/*', 'W'", "SELECT '...' \n, '...', '...', '...'"),
    ],
)  # fmt: skip
def test_literals_are_blanked(database: str, query: str, shown: str) -> None:
    """The statement stays recognisable, its literals do not, however they are quoted."""
    assert shown == blanked(database, query.replace("W", WORDS))


@pytest.fixture
def speaking(app: App) -> Iterator[psycopg.Connection[Any]]:
    """A client amid a transaction, whose last statement quotes what somebody said."""
    text: LiteralString = (
        "SELECT user_id FROM conversation_history WHERE content = 'Canary7Xyzzy' FOR UPDATE"
    )
    with app.connected(autocommit=False) as client:
        client.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        client.execute(text)
        yield client
        client.rollback()


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("blockers", {"relation": "conversation_history", "modes": ["RowShareLock"]}),
        ("preflight_transactions", {"older_s": 0}),
        ("older_snapshots", {"at": "infinity", "xact": "1"}),
        ("user_id_sessions", {"within_s": 60, "own": "/* memsync */"}),
    ],
)
def test_every_question_that_shows_statements_blanks_them(
    app: App, speaking: psycopg.Connection[Any], name: str, params: dict[str, Any]
) -> None:
    """A session that is named as being in the way is named without its literals."""
    with app.connected(row_factory=psycopg.rows.namedtuple_row) as connection:
        rows = Session(connection, "").rows(name, **params)
    (shown,) = [row.query for row in rows if row.pid == speaking.info.backend_pid]

    assert WORDS not in shown
    assert "content = '...' FOR UPDATE" in shown
