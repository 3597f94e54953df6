"""The matching of audits agrees with the evidence of the migration, where both speak of one thing.

Evidence is read before the history has personas, and goes by users. So each user of these histories
has one persona, and both ask which exchange of that one a memory was made from.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from memsync.demo.world import legacy_schema
from memsync.migrate.attribution.points import COLUMNS, Reading
from memsync.model.ids import MessageId, PersonaId, PersonalityId
from memsync.model.progress import silent
from memsync.model.records import Exchange, Place, Point
from memsync.reconcile.cases import Found
from memsync.reconcile.matching import Match, Matcher
from memsync.settings import Settings
from memsync.stores.ltm import Embedder, LongTermMemory
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.postgres import Postgres
from memsync.stores.vectors import open_vectors
from support.cast import CAST
from support.lab import ADA, BASIL, DIMS, A, C, as_told, embed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memsync.stores.postgres import Session
    from support.postgres import PostgresCluster


AT = 1_750_000_000_000
TOLERANCE = timedelta(seconds=10)
_SPACE = UUID(int=7)
_CODEC = PayloadCodec("camel")
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
"""The histories are small, and each takes a while."""
ONE_PERSONA_EACH = """
UPDATE users SET global_persona_id = NULL;
UPDATE personas SET owner_id = ('cccccccc-0000-4000-8000-00000000000' ||
    CASE right(id::text, 1) WHEN 'a' THEN 1 WHEN 'c' THEN 2 ELSE 3 END)::uuid"""
SAY = """
INSERT INTO conversation_history
       (id, channel_id, personality_id, user_id, role, content, created_at)
VALUES (%s, %s, %s, ('cccccccc-0000-4000-8000-00000000000' || %s)::uuid, %s, %s,
        timestamp '1970-01-01' + %s * interval '1 millisecond')"""


@dataclass(frozen=True)
class _Evidence:
    """Asks the statements of the migration about a history and its memories."""

    connection: psycopg.Connection
    session: Session

    def __call__(
        self, rows: Sequence[Exchange], memories: Sequence[Found]
    ) -> dict[UUID, set[UUID]]:
        """The anchors that each point resembles most, among those of its persona's user."""
        self.connection.execute("DELETE FROM conversation_history")
        with self.connection.cursor() as cursor:
            cursor.executemany(SAY, [each for row in rows for each in _messages(row)])
        self.session.connection.execute("TRUNCATE memsync_points, memsync_matches")
        chosen = Settings(postgres_url="postgresql:///x", qdrant_url=":memory:")
        vectors = open_vectors(chosen, create=True)
        for each in memories:
            vectors.create(each.place.collection, DIMS, {})
            vector = tuple(embed(["x"])[0])
            vectors.upsert(
                each.place.collection, [Point(each.point.id, each.point.payload, vector)]
            )
        ltm = LongTermMemory(vectors, chosen, Embedder("test", embed))
        self.session.copy_rows("memsync_points", COLUMNS, Reading(ltm, silent).rows())
        threads = {"same_speaker": "same_user"}
        self.session.run_with(threads, "match_points")
        slot = 2 * TOLERANCE + timedelta(seconds=1)
        self.session.run_with(threads, "match_skewed_points", tolerance=TOLERANCE, slot=slot)
        vectors.close()
        return self._nearest()

    def _nearest(self) -> dict[UUID, set[UUID]]:
        found = self.session.connection.execute(
            "SELECT m.source, m.anchor_id, m.skewed::int * 2 + m.enriched::int FROM memsync_matches"
            " m JOIN personas p ON p.id = m.persona_id AND p.owner_id = m.user_id"
        ).fetchall()
        by_point: dict[UUID, dict[UUID, int]] = defaultdict(dict)
        for source, anchor, distance in found:
            by_point[UUID(source.rpartition("/")[2])][anchor] = distance
        return {
            point: {a for a, d in of.items() if d == min(of.values())}
            for point, of in by_point.items()
        }


def _messages(row: Exchange) -> Iterator[tuple[object, ...]]:
    user = "1" if row.persona_id == A else "2"
    whose = (row.channel_id, row.personality_id, user)
    yield (row.said_id, *whose, "user", row.user_text, row.created_at_ms - 1)
    yield (row.anchor_id, *whose, "assistant", row.assistant_text, row.created_at_ms)


@pytest.fixture(scope="module")
def evidence(postgres_cluster: PostgresCluster) -> Iterator[_Evidence]:
    """Call it for what the migration would say."""
    name = postgres_cluster.create()
    url = postgres_cluster.url_of(name)
    with (
        Postgres.open(url) as postgres,
        postgres.session() as session,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        session.run_script(legacy_schema())
        session.run_script(CAST)
        session.run_script(ONE_PERSONA_EACH)
        session.run("make_points")
        session.run("make_matches")
        yield _Evidence(connection, session)
    postgres_cluster.drop(name)


texts = st.sampled_from(["hi", "hi there", "", "a): b", "x: y\nz", "look"])
spoken = st.tuples(
    st.integers(0, 12),
    st.sampled_from([A, C]),
    st.sampled_from([ADA, BASIL]),
    texts,
    texts,
    st.sampled_from(["1", "2"]),
)
kept = st.tuples(
    st.integers(0, 11),
    st.sampled_from([0, 0, 1, -700, 2500, 10_000, 10_001]),
    st.sampled_from(["", "", " [a cat]", "\n[a dog]"]),
    st.sampled_from(["", "", "\n[a]"]),
    st.booleans(),
)


histories = st.lists(
    spoken, min_size=1, max_size=6, unique_by=lambda said: (said[0], said[1], said[2], said[5])
)


@given(said=histories, told=st.lists(kept, max_size=6))
@settings(max_examples=100, suppress_health_check=list(HealthCheck), phases=UNSHRUNK)
def test_a_memory_is_of_the_exchange_that_evidence_names(
    evidence: _Evidence, said: list[tuple[Any, ...]], told: list[tuple[Any, ...]]
) -> None:
    """In small histories, of texts and times that are often equal."""
    _agree(evidence, said, told)


@pytest.mark.slow
@given(said=histories, told=st.lists(kept, max_size=6))
@settings(max_examples=2000, suppress_health_check=list(HealthCheck), phases=UNSHRUNK)
def test_the_same_in_many_histories(
    evidence: _Evidence, said: list[tuple[Any, ...]], told: list[tuple[Any, ...]]
) -> None:
    """The same in two thousand of them."""
    _agree(evidence, said, told)


def _agree(
    evidence: _Evidence, said: Sequence[tuple[Any, ...]], told: Sequence[tuple[Any, ...]]
) -> None:
    """Where evidence has one exchange for a memory, the matching has that one; where it has
    several, one of them; where it has none, only an exchange of the same time, whose text differs.
    """
    rows = [_row(n, *each) for n, each in enumerate(said)]
    memories = [_memory(n, rows[at % len(rows)], *more) for n, (at, *more) in enumerate(told)]
    by_evidence = evidence(rows, memories)
    for found in _matched(rows, memories):
        point = found.found if isinstance(found, Match) else found
        candidates = by_evidence.get(point.point.id, set())  # type: ignore[arg-type]
        anchor = found.exchange.anchor_id if isinstance(found, Match) else None
        if len(candidates) == 1:
            assert candidates == {anchor}, (point.point.payload, found)
        elif candidates:
            assert anchor in candidates or anchor in _said_alike(rows, candidates)
        elif isinstance(found, Match):
            assert found.exchange.created_at_ms == point.reading.memory.created_at_ms
            assert found.exchange.persona_id == point.persona_id


def _matched(rows: Sequence[Exchange], memories: Sequence[Found]) -> Iterator[Match | Found]:
    for persona in (A, C):
        own = [each for each in rows if each.persona_id == persona]
        told = [each for each in memories if each.persona_id == persona]
        yield from Matcher(own, int(TOLERANCE.total_seconds() * 1000)).match(told)


def _said_alike(rows: Sequence[Exchange], anchors: set[UUID]) -> set[UUID]:
    """The exchanges that say the same as one of these."""
    words = {(r.user_text, r.assistant_text) for r in rows if r.anchor_id in anchors}
    return {r.anchor_id for r in rows if (r.user_text, r.assistant_text) in words}


def _row(
    number: int, at: int, persona: UUID, personality: UUID, user: str, reply: str, channel: str
) -> Exchange:
    anchor, said = (MessageId(uuid5(_SPACE, f"{number}{role}")) for role in "au")
    whose = PersonaId(persona), PersonalityId(personality)
    return Exchange(anchor, *whose, channel, AT + at * 3001, user, reply, said)


def _memory(number: int, of: Exchange, skew: int, user: str, reply: str, in_seconds: bool) -> Found:
    at = of.created_at_ms + skew
    payload = {
        "personalityId": str(of.personality_id),
        "personaId": str(of.persona_id),
        "content": as_told(of, user=user, reply=reply),
        "createdAt": at // 1000 if in_seconds else at,
        "channelId": of.channel_id,
    }
    point = Point(uuid5(_SPACE, f"point {number}"), payload)
    place = Place(f"persona-{of.persona_id}", point.id)
    reading = _CODEC.decode(payload)
    return Found(place, point, reading, _CODEC, home=True, persona_id=of.persona_id)
