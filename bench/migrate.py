"""Benchmark: `migrate run` beside the all-in-one script that people used, on the same rows.

Measures wall time, the longest wait of any client statement (2 readers, 2 writers), and size
before and after. Usage: python bench/migrate.py [--rows 100000] [--postgres-url URL].
Without a URL it starts an embedded server (durable) in a temporary folder.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import psycopg
from clients import Waits, clients

from memsync import legacy, migrate
from memsync.settings import Settings
from memsync.stores.embedded import start_embedded
from memsync.stores.postgres import Postgres

# One transaction, as it was: every index and key first, then the fill, then NOT NULL and drop.
ALL_IN_ONE = """
BEGIN;
ALTER TABLE conversation_history ADD COLUMN persona_id uuid;
CREATE INDEX conversation_history_persona_id_idx ON conversation_history (persona_id);
ALTER TABLE conversation_history ADD CONSTRAINT conversation_history_persona_id_fkey
    FOREIGN KEY (persona_id) REFERENCES personas (id) ON DELETE CASCADE ON UPDATE CASCADE;
UPDATE conversation_history h SET persona_id = u.global_persona_id
    FROM users u WHERE u.id = h.user_id AND h.persona_id IS NULL;
ALTER TABLE conversation_history ALTER COLUMN persona_id SET NOT NULL;
ALTER TABLE conversation_history DROP COLUMN user_id;
COMMIT;
"""

ROWS = """
INSERT INTO users (id, discord_id, username, updated_at)
SELECT gen_random_uuid(), i::text, 'user' || i, now() FROM generate_series(1, 2000) i;
INSERT INTO personas (id, name, content, owner_id, updated_at)
SELECT gen_random_uuid(), username, '', id, now() FROM users;
UPDATE users u SET global_persona_id = p.id FROM personas p WHERE p.owner_id = u.id;
INSERT INTO personalities (id, name, slug, character_info, personality_traits, updated_at)
SELECT gen_random_uuid(), 'p' || i, 'p' || i, '', '', now() FROM generate_series(1, 20) i;
CREATE TEMP TABLE u AS SELECT row_number() OVER () - 1 AS n, id FROM users;
CREATE TEMP TABLE p AS SELECT row_number() OVER () - 1 AS n, id FROM personalities;
INSERT INTO conversation_history
       (id, channel_id, personality_id, user_id, role, content, created_at)
SELECT gen_random_uuid(), 'c' || (i / 40 % 5000), p.id, u.id,
       CASE WHEN i % 2 = 0 THEN 'user' ELSE 'assistant' END,
       repeat(md5(i::text), 4), timestamp '2026-01-01' + i * interval '1 second'
FROM generate_series(1, {rows}) i
JOIN u ON u.n = i / 2 % 2000 JOIN p ON p.n = i / 40 % 20;
VACUUM ANALYZE;
CHECKPOINT;
"""


@contextlib.contextmanager
def server(url: str | None) -> Iterator[str]:
    """A server to make databases on: the given one, or one of our own."""
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="memsync-bench-") as folder:
        Path(folder).chmod(0o755)
        with start_embedded(Path(folder) / "postgres") as started:
            yield started.conninfo


@contextlib.contextmanager
def database(url: str, rows: int) -> Iterator[str]:
    """A database with the legacy schema and `rows` messages."""
    name = "memsync_bench"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {name}")
        made = psycopg.conninfo.make_conninfo(url, dbname=name)
        with psycopg.connect(made, autocommit=True) as fresh:
            fresh.execute(legacy.legacy_schema())
            for statement in ROWS.format(rows=rows).strip().split(";\n"):
                fresh.execute(statement)
        yield made
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def size_bytes(url: str) -> int:
    """The table with its indexes."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_total_relation_size('conversation_history')").fetchone()
    return row[0] if row else 0


def all_in_one(url: str) -> None:
    """The reference."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(ALL_IN_ONE)


def memsync_run(url: str) -> None:
    """Ours."""
    with Postgres.open(url) as postgres:
        migrate.run(postgres, Settings(postgres_url="postgresql://bench"))


def measured(url: str, work: Callable[[str], None]) -> dict[str, object]:
    """Do the work under load: seconds, waits, growth."""
    before = size_bytes(url)
    waits: Waits
    with clients(url) as waits:
        started = time.monotonic()
        work(url)
        wall_s = time.monotonic() - started
    return {
        "wall_s": round(wall_s, 2),
        "growth": round(size_bytes(url) / before, 2),
        **asdict(waits),
    }


def main() -> None:
    """Run both and print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--postgres-url")
    parser.add_argument("--only", choices=("reference", "memsync"))
    options = parser.parse_args()
    results = {}
    with server(options.postgres_url) as url:
        for name, work in (("reference", all_in_one), ("memsync", memsync_run)):
            if options.only in {None, name}:
                with database(url, options.rows) as made:
                    results[name] = measured(made, work)
    if len(results) == 2:
        results["ratio"] = results["memsync"]["wall_s"] / results["reference"]["wall_s"]
    print(json.dumps({"rows": options.rows, **results}, indent=1, default=str))


if __name__ == "__main__":
    main()
