"""A migrated app of any size on both stores, whose stores differ in a known share of memories.

It decides the benchmarked data: one persona for each hundred exchanges, twenty personalities, an
exchange a minute. A difference is a memory that is missing, one whose text is another, a second
memory of an exchange, or a memory that no exchange explains, in turn. `Differences` counts them, so
that a benchmark can refuse an audit that does not find them all.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from uuid import UUID, uuid4

import psycopg

from memsync import migrate
from memsync.demo.world import legacy_schema
from memsync.model.ids import MessageId
from memsync.model.records import Exchange
from memsync.settings import Settings
from memsync.stores.history.exchanges import exchanges_of_personas
from memsync.stores.history.owners import owners_page
from memsync.stores.ltm import Embedder, LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.postgres import Postgres, Session
from memsync.stores.vectors import open_vectors

EMBEDDER = "both_stores:embed"
"""The name by which a command loads `embed`, where this folder is on its path."""

OF_A_PERSONA = 100
_USERS = 10
"""The memories of so many users are written at a time."""
_APART_MS = 30_000
"""How far an orphan is from an exchange: between it and the next."""
_KINDS = ("missing-point", "stale-content", "duplicate-point", "orphan-point")
_UNHINDERED = migrate.RunOptions(quiet_minutes=0, backup_confirmed="bench", evidence="ignore")

_CAST = """
INSERT INTO users (id, discord_id, username, updated_at)
SELECT gen_random_uuid(), i::text, 'user' || i, now() FROM generate_series(1, {personas}) i;
INSERT INTO personas (id, name, content, owner_id, updated_at)
SELECT gen_random_uuid(), username, '', id, now() FROM users;
UPDATE users u SET global_persona_id = p.id FROM personas p WHERE p.owner_id = u.id;
INSERT INTO personalities (id, name, slug, character_info, personality_traits, updated_at)
SELECT gen_random_uuid(), 'p' || i, 'p' || i, '', '', now() FROM generate_series(1, 20) i
"""

_HISTORY = """
CREATE TEMPORARY TABLE a AS SELECT row_number() OVER () - 1 AS n, id FROM personas;
CREATE TEMPORARY TABLE b AS SELECT row_number() OVER () - 1 AS n, id FROM personalities;
INSERT INTO conversation_history
       (id, channel_id, personality_id, persona_id, role, content, created_at)
SELECT gen_random_uuid(), 'c' || a.n, b.id, a.id, role, role || ' ' || repeat(md5(i::text), 4),
       timestamp '2020-01-01' + i * interval '1 minute' + second * interval '1 second'
FROM generate_series(1, {exchanges}) i
JOIN a ON a.n = i % {personas} JOIN b ON b.n = i % 20
CROSS JOIN (VALUES ('user', 0), ('assistant', 3)) said (role, second);
VACUUM ANALYZE;
CHECKPOINT
"""


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Unit vectors of 64 dimensions that depend on the text alone. They cost next to nothing."""
    return [_unit(text) for text in texts]


def _unit(text: str) -> list[float]:
    values = [byte - 127.5 for byte in hashlib.sha512(text.encode()).digest()]
    length = math.hypot(*values)
    return [value / length for value in values]


def make_app(url: str, exchanges: int, of_a_persona: int = OF_A_PERSONA) -> None:
    """Make a migrated app with so many exchanges in an empty database."""
    personas = max(1, exchanges // of_a_persona)
    with psycopg.connect(url, autocommit=True) as fresh:
        fresh.execute("SET TIME ZONE 'UTC'")
        fresh.execute(legacy_schema())
        fresh.execute(_CAST.format(personas=personas))
    with Postgres.open(url) as postgres:
        migrate.run(postgres, Settings(), _UNHINDERED)
    with psycopg.connect(url, autocommit=True) as migrated:
        migrated.execute("SET TIME ZONE 'UTC'")
        for statement in _HISTORY.format(exchanges=exchanges, personas=personas).split(";\n"):
            migrated.execute(statement)


def make_memories(settings: Settings, share: float) -> dict[str, int]:
    """Write the memories of all exchanges, so that this share of them differs.

    Returns how many findings of each name an audit must have.
    """
    planted: Counter[str] = Counter()
    vectors = open_vectors(settings, create=True)
    ltm = LongTermMemory(vectors, settings, Embedder(EMBEDDER, embed), Layout(settings.layout))
    with closing(ltm), Postgres.open(settings.postgres_url or "") as postgres:
        ltm.prepare()
        with postgres.session() as session:
            for personas in _pages(session):
                said = list(_spoiled(exchanges_of_personas(session, personas), share, planted))
                made = ltm.make(session, [each for each, _ in said])
                doubled = {each.anchor_id for each, is_doubled in said if is_doubled}
                for collection, some in ltm.embedded(made).by_collection().items():
                    ltm.ensure(collection, ltm.embedder.dims)
                    points = [point for _, point in some]
                    doubles = [point for point in points if point.id in doubled]
                    points += [replace(each, id=uuid4()) for each in doubles]
                    vectors.upsert(collection, points)
    return dict(planted)


def _pages(session: Session) -> Iterator[list[UUID]]:
    """The personas, those of some users at a time."""
    after = UUID(int=0)
    while page := owners_page(session, after, _USERS):
        yield [persona for personas in page.values() for persona in personas]
        after = max(page)


def _spoiled(
    exchanges: Sequence[Exchange], share: float, planted: Counter[str]
) -> Iterator[tuple[Exchange, bool]]:
    """The memories of these exchanges, and whether one is there twice."""
    times = sorted(each.created_at_ms for each in exchanges)
    for number, each in enumerate(exchanges):
        if int((number + 1) * share) == int(number * share):
            yield each, False
            continue
        kind = _KINDS[planted.total() % len(_KINDS)]
        planted[kind] += 1
        if kind == "stale-content":
            yield replace(each, assistant_text=f"not {each.assistant_text}"), False
        elif kind != "missing-point":
            yield each, kind == "duplicate-point"
        if kind == "orphan-point":
            # Neither older than all exchanges nor newer: those are other findings.
            is_late = each.created_at_ms > times[len(times) // 2]
            at = each.created_at_ms + (-_APART_MS if is_late else _APART_MS)
            of_nobody = replace(
                each,
                anchor_id=MessageId(uuid4()),
                said_id=MessageId(uuid4()),
                created_at_ms=at,
                user_text="of old",
                assistant_text=f"of old {number}",
            )
            yield of_nobody, False
