"""While everybody is at work, an audit finds what was planted, and nothing else.

The traffic comes from a seed (`support.traffic`): a failure names it, and it is the same again.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from memsync.memory import NewExchange
from memsync.model.records import to_ms
from memsync.reconcile.adopt import Part
from memsync.stores.vectors import open_vectors
from support.failing import Failing
from support.lab import ADA, LONG_AGO, A, Lab
from support.traffic import Kind, Town, Traffic
from support.traffic.town import ARCHIVED, Clock

NewTraffic = Callable[[Kind, int], Traffic]


@pytest.fixture
def traffic_of(
    open_lab: partial[Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NewTraffic]:
    """Call it for the traffic of a seed, in a town that has a past."""
    with ExitStack() as after:

        def begin(kind: Kind, seed: int) -> Traffic:
            lab = open_lab("edge", **kind.settings)
            lab.settings = lab.settings.model_copy(update={"qdrant_url": f"edge:{tmp_path}/town"})
            lab.vectors = open_vectors(lab.settings, create=True)
            lab.ltm = lab.with_store(lab.vectors)
            after.callback(lambda: lab.vectors.close())  # noqa: PLW0108  it is opened again
            app = after.enter_context(psycopg.connect(lab.url, autocommit=True))
            app.execute("SET lock_timeout = '5 s'")
            town = Town(lab, kind, random.Random(seed), app)
            town.clock.skew_ms = town.rng.randint(-5000, 5000)
            traffic = Traffic(town)
            traffic.patch(monkeypatch)
            after.callback(traffic.close)
            traffic.begin()
            return traffic

        yield begin


def live(traffic: Traffic, rounds: int) -> None:
    """Let everybody act, with looks at random moments, and plant faults from the middle on."""
    for number in range(rounds):
        for _ in range(traffic.rng.randint(1, 12)):
            traffic.step()
        if number >= rounds // 3:
            traffic.plant()
        traffic.look()


def comes_to_rest(traffic: Traffic) -> None:
    """Once nobody is at work, the planted faults are all there is, and repairs mend them."""
    traffic.finish()
    lab, faults = traffic.town.lab, traffic.town.faults
    for deep in traffic.ways:
        for each in faults:
            each.found = False
        traffic.look(deep)
        seen = [each for each in faults if deep is not False or not each.needs_deep]
        assert not [each for each in seen if each.must_be_found and not each.found]
    lab.apply(lab.plan(lab.audit(deep=True)))
    lost = list(lab.audit(deep=True).faults)
    assert {each.name for each in lost} <= {*ARCHIVED, "row-vanished", "newer-than-history"}
    points = {each.witness.place for each in lost if each.name != "newer-than-history"}
    traffic.adopt(part=Part(points=frozenset(filter(None, points))), anew=True) if points else None
    assert {each.name for each in lab.check().faults} <= {"newer-than-history"}


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("number", [1, 2])
def test_what_was_planted_is_found_and_nothing_else(
    traffic_of: NewTraffic, kind: Kind, number: int
) -> None:
    """Whatever is under way, no audit has a false finding, and two audits find every fault."""
    traffic = traffic_of(kind, number)
    live(traffic, 10)
    comes_to_rest(traffic)


@pytest.mark.slow
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("number", range(1, 51))
def test_many_seeds(traffic_of: NewTraffic, seed: int, kind: Kind, number: int) -> None:
    """The same for longer, from fifty seeds."""
    traffic = traffic_of(kind, seed + number)
    live(traffic, 30)
    comes_to_rest(traffic)


PENDING = """
INSERT INTO pending_memories
       (id, conversation_history_id, persona_id, personality_id, text, metadata, created_at)
VALUES (gen_random_uuid(), %(row)s, %(a)s, %(ada)s, 'text', '{}', now() AT TIME ZONE 'UTC')"""


@pytest.mark.parametrize("named", [True, False])
def test_what_was_on_its_way_when_an_audit_began(
    open_lab: partial[Lab], monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    """Named by the app's outbox, or young: when the memory has come, and the audit ends an hour
    later, nothing excuses it any more.
    """
    lab = open_lab(layout="per-persona")
    lab.settled()
    watched = Failing(lab.vectors)
    lab.audit(watched)
    way = sys.modules["memsync.reconcile.on_its_way"]
    now = datetime.now(UTC)
    for at in range(1, len(watched.calls) + 1):
        said_at = LONG_AGO - timedelta(hours=at) if named else now - timedelta(seconds=30)
        told = NewExchange(str(at), ADA, A, f"question {at}", f"answer {at}", said_at, said_at)
        anchor = lab.memory.remember(told).assistant_message_id
        lab.sql("TRUNCATE memsync.outbox")
        if named:
            lab.sql(PENDING, row=anchor, a=A, ada=ADA)
        with monkeypatch.context() as patch:

            def write(patch: pytest.MonkeyPatch = patch, anchor: UUID = anchor) -> None:
                lab.deploy(lab.exchange(anchor))
                lab.sql("TRUNCATE pending_memories")
                clock = Clock(at_ms=to_ms(now + timedelta(hours=1)))
                patch.setattr(way, "now_ms", clock.now_ms)
                patch.setattr(way, "time", clock)

            store = Failing(lab.vectors)
            store.meanwhile = lambda _, store=store, at=at, write=write: (
                write() if len(store.calls) == at else None
            )
            assert {} == lab.audit(store).counts, f"at call {at}"
