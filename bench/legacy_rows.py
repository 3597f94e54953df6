"""A legacy app of any size, made by SQL, and the true persona of each of its messages.

It decides the benchmarked data: 2,000 users who talk to 20 personalities in turn. Every fifth user
chose another persona for every fourth personality, so that both rules, override and default, decide
rows; some settings choose a model only. The true personas stand in the benchmark's own schema. They
are found by a message's time, so the check uses nothing that a migration writes but the persona.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from memsync.demo.world import legacy_schema
from memsync.stores.postgres.embedded import start_embedded

NAME = "memsync_bench"

_ROWS = """
CREATE SCHEMA bench;
INSERT INTO users (id, discord_id, username, updated_at)
SELECT gen_random_uuid(), i::text, 'user' || i, now() FROM generate_series(1, 2000) i;
INSERT INTO personas (id, name, content, owner_id, updated_at)
SELECT gen_random_uuid(), username, '', id, now() FROM users;
UPDATE users u SET global_persona_id = p.id FROM personas p WHERE p.owner_id = u.id;
INSERT INTO personalities (id, name, slug, character_info, personality_traits, updated_at)
SELECT gen_random_uuid(), 'p' || i, 'p' || i, '', '', now() FROM generate_series(1, 20) i;
CREATE TABLE bench.u AS SELECT row_number() OVER () - 1 AS n, id FROM users;
CREATE TABLE bench.p AS SELECT row_number() OVER () - 1 AS n, id FROM personalities;
INSERT INTO personas (id, name, content, owner_id, updated_at)
SELECT gen_random_uuid(), 'another of mine', '', id, now() FROM bench.u WHERE n % 5 = 0;
INSERT INTO user_personality_settings (id, user_id, personality_id, persona_id, updated_at)
SELECT gen_random_uuid(), u.id, p.id,
       (SELECT a.id FROM personas a WHERE a.owner_id = u.id AND a.name = 'another of mine'), now()
FROM bench.u JOIN bench.p ON p.n % 4 = 0 WHERE u.n % 5 IN (0, 1);
CREATE TABLE bench.truth AS
SELECT u.n AS user_n, p.n AS personality_n,
       coalesce(s.persona_id, who.global_persona_id) AS persona_id
FROM bench.u JOIN users who ON who.id = u.id CROSS JOIN bench.p
LEFT JOIN user_personality_settings s ON s.user_id = u.id AND s.personality_id = p.id;
INSERT INTO conversation_history
       (id, channel_id, personality_id, user_id, role, content, created_at)
SELECT gen_random_uuid(), 'c' || (i / 40 % 5000), p.id, u.id,
       CASE WHEN i % 2 = 0 THEN 'user' ELSE 'assistant' END,
       repeat(md5(i::text), 4), timestamp '2020-01-01' + i * interval '1 second'
FROM generate_series(1, {rows}) i
JOIN bench.u ON u.n = i / 2 % 2000 JOIN bench.p ON p.n = (i / 40 + i / 4000) % 20;
VACUUM ANALYZE;
CHECKPOINT;
"""

# The number of a message is its time in seconds; _ROWS derives its user and personality from this
# number. Messages of live clients are younger than the benchmark's, so they are not counted.
_WRONG_ROWS = """
WITH numbered AS (
    SELECT persona_id, extract(epoch FROM created_at - timestamp '2020-01-01')::bigint AS i
    FROM conversation_history WHERE created_at <= timestamp '2020-01-01' + {rows} * interval '1 s')
SELECT count(*) FILTER (WHERE h.persona_id IS DISTINCT FROM t.persona_id), count(*)
FROM numbered h
LEFT JOIN bench.truth t ON t.user_n = i / 2 % 2000 AND t.personality_n = (i / 40 + i / 4000) % 20
"""


@contextlib.contextmanager
def server(url: str | None) -> Iterator[str]:
    """A server to make databases on: the given one, or a durable embedded one."""
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="memsync-bench-") as folder:
        Path(folder).chmod(0o755)
        with start_embedded(Path(folder) / "postgres") as started:
            yield started.conninfo


def _url_of(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    head, mark, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/{name}{mark}{query}"


@contextlib.contextmanager
def empty_database(url: str) -> Iterator[str]:
    """An empty database."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {NAME}")
        yield _url_of(url, NAME)
        admin.execute(f"DROP DATABASE {NAME} WITH (FORCE)")


@contextlib.contextmanager
def database(url: str, rows: int) -> Iterator[str]:
    """A database with the legacy schema and `rows` messages."""
    with empty_database(url) as made:
        with psycopg.connect(made, autocommit=True) as fresh:
            fresh.execute("SET TIME ZONE 'UTC'")
            fresh.execute(legacy_schema())
            for statement in _ROWS.format(rows=rows).strip().split(";\n"):
                fresh.execute(statement)
        yield made


def one(url: str, query: str, *params: object) -> Any:
    """The first row of a query."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query, params or None).fetchone()


def sizes_bytes(url: str) -> tuple[int, int]:
    """The sizes of the history with its indexes, and of the whole database with the archive."""
    return tuple(
        one(
            url,
            "SELECT pg_total_relation_size('conversation_history'),"
            " pg_database_size(current_database())",
        )
    )


def wrong_rows(url: str, rows: int) -> int:
    """How many of the messages have a wrong persona.

    Raises: RuntimeError when messages were lost.
    """
    wrong, found = one(url, _WRONG_ROWS.format(rows=rows))
    if found != rows:
        raise RuntimeError(f"{found} messages are left of {rows}")
    return int(wrong)
