"""Tests the relay: whatever fails, an entry is settled only once its memory is written."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from memsync.errors import DimensionMismatch, PartlyDone, StoreBusy, StoreUnreachable
from memsync.memory import Drained, NewExchange, OutboxStatus, outbox_status, relay, revive
from memsync.memory.relay import ATTEMPTS_MAX, BATCH_ENTRIES
from memsync.stores.ltm import LongTermMemory, store
from memsync.stores.ltm.embedders import Embedder
from memsync.stores.ltm.marks import META
from memsync.stores.postgres.locks import LockKey, exclusive
from support.failing import Crash, Failing
from support.lab import ADA, CHANNEL, DIMS, A, Lab, embed
from support.releasing import drain

MARKING = 3
"""Calls at the end of a drain that make the mark."""


def attempts(lab: Lab) -> list[tuple[int, bool]]:
    """Of every entry in id order: the number of attempts, and whether it is dead."""
    return lab.sql("SELECT attempts, dead FROM memsync.outbox ORDER BY id")


def due(lab: Lab) -> None:
    """Make every waiting entry due now."""
    lab.sql("UPDATE memsync.outbox SET next_attempt_at = now()")


def picky(texts: Sequence[str]) -> list[list[float]]:
    """Embed, but give `question 1` a zero vector, which is refused."""
    return [[0.0] * DIMS if "question 1\n" in each else embed([each])[0] for each in texts]


def raising(texts: Sequence[str]) -> list[list[float]]:
    """Embed, but raise at `question 1`, as a model may."""
    if any("question 1\n" in each for each in texts):
        raise RuntimeError("too many tokens")
    return embed(texts)


def with_embedder(lab: Lab, documents: Any) -> LongTermMemory:
    """Long-term memory with another embedder."""
    return LongTermMemory(lab.vectors, lab.settings, Embedder("test", documents))


def test_draining_twice_is_draining_once(any_lab: Lab) -> None:
    """The second drain has nothing to do and changes nothing."""
    any_lab.say(3)
    assert Drained(3, 3) == drain(any_lab.postgres, any_lab.ltm)
    before = any_lab.points()
    assert Drained(0, 0) == drain(any_lab.postgres, any_lab.ltm)
    assert before == any_lab.points()


def test_an_entry_may_repeat_and_may_mean_nothing(lab: Lab) -> None:
    """Several entries of one exchange make one memory; an entry without an exchange makes none."""
    [exchange] = lab.say()
    lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(id)s)", id=exchange.anchor_id)
    lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (gen_random_uuid())")
    assert Drained(3, 1) == drain(lab.postgres, lab.ltm)
    assert lab.check().ok


@pytest.mark.parametrize("so_long_s", [0, 60])
def test_an_index_that_went_is_made_again(
    any_lab: Lab, monkeypatch: pytest.MonkeyPatch, so_long_s: int
) -> None:
    """Also by a relay that goes on, some time after somebody restored the collection without it."""
    monkeypatch.setattr(store, "_PREPARED_FOR_S", so_long_s)
    any_lab.say()
    any_lab.sync()
    any_lab.vectors.drop(any_lab.home)
    any_lab.vectors.create(any_lab.home, DIMS, {})
    any_lab.say()
    any_lab.sync()
    info = any_lab.vectors.describe(any_lab.home)
    assert ({} if so_long_s else any_lab.ltm.codec.indexes) == (info and info.indexes)


def test_more_than_a_batch(lab: Lab) -> None:
    """One drain carries out all batches."""
    count = BATCH_ENTRIES + 1
    lab.sql("INSERT INTO memsync.outbox (point_id) SELECT gen_random_uuid()"
            " FROM generate_series(1, %(n)s)", n=count)  # fmt: skip
    assert Drained(count, 0) == drain(lab.postgres, lab.ltm)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_call(lab: Lab, *, after: bool) -> None:
    """When the relay dies at any store call, its entries stay due and the next drain does them.

    An attempt is counted when it dies at the entries' own work, as a text may be the reason: from
    the first look at their memories on. When it dies at the mark, they are done.
    """
    exchanges = lab.say(3)
    watched = Failing(lab.vectors)
    drain(lab.postgres, lab.with_store(watched))
    expected = lab.memories()
    for at in range(1, len(watched.calls) + 1):
        lab.vectors.drop(lab.home)
        lab.vectors.drop(META)
        lab.sql("TRUNCATE memsync.mark")
        for each in exchanges:
            lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(id)s)", id=each.anchor_id)
        failing = Failing(lab.vectors, at=at, after=after, error=Crash)
        with pytest.raises(Crash):
            drain(lab.postgres, lab.with_store(failing))
        # The look at the mark comes right before the first look at the memories.
        counted = int(at >= watched.calls.index("retrieve"))
        left = 0 if at > len(watched.calls) - MARKING else 3
        assert [(counted, False)] * left == attempts(lab)
        assert Drained(left, left) == drain(lab.postgres, lab.with_store(lab.vectors))
        assert expected == lab.memories()


def test_a_store_that_is_down_from_the_beginning_is_told_at_once(lab: Lab) -> None:
    """StoreUnreachable reaches the caller at once; nothing is settled, no attempt is counted."""
    lab.say(3)
    with pytest.raises(StoreUnreachable):
        drain(lab.postgres, lab.with_store(Failing(lab.vectors, at=1)))
    assert [(0, False)] * 3 == attempts(lab)
    lab.sync()
    assert lab.check().ok


def test_one_poisonous_text_does_not_hold_up_the_rest(lab: Lab) -> None:
    """An entry that keeps failing delays no other, dies after its last try and can be revived."""
    lab.say(5)
    poisoned = with_embedder(lab, picky)
    for attempt in range(1, ATTEMPTS_MAX + 1):
        with pytest.raises(PartlyDone) as caught:
            drain(lab.postgres, poisoned)
        assert (3, 1 - (attempt == ATTEMPTS_MAX)) == (
            caught.value.exit_status,
            caught.value.fields["pending"],
        )
        assert [(attempt, attempt == ATTEMPTS_MAX)] == attempts(lab)
        assert 4 == lab.vectors.count(lab.home)
        due(lab)
    with pytest.raises(
        PartlyDone, match=r"1 are dead.*squared length 0.*memsync sync retry"
    ) as left:
        drain(lab.postgres, poisoned)
    assert (0, 0, 1) == tuple(left.value.fields[each] for each in ("done", "pending", "dead"))
    status = outbox_status(lab.postgres)
    assert OutboxStatus(0, 1, 0.0, status.dead_error) == status
    assert "squared length 0" in str(status.dead_error)
    assert {"missing-point": 1, "dead-outbox-entry": 1} == lab.check().counts
    assert 1 == revive(lab.postgres)
    assert Drained(1, 1) == drain(lab.postgres, with_embedder(lab, embed))
    assert lab.check().ok


def test_a_deferred_entry_waits_before_it_is_tried_again(lab: Lab) -> None:
    """An entry that failed is due only some time after it was enqueued."""
    lab.say(2)
    poisoned = with_embedder(lab, picky)
    with pytest.raises(PartlyDone):
        drain(lab.postgres, poisoned)
    [(waits,)] = lab.sql("SELECT next_attempt_at > enqueued_at FROM memsync.outbox")
    assert waits


def test_a_model_that_raises_is_no_different(lab: Lab) -> None:
    """One text at which the model raises does not hold up the other entries."""
    lab.say(3)
    with suppress(PartlyDone, RuntimeError):
        drain(lab.postgres, with_embedder(lab, raising))
    assert 2 == lab.vectors.count(lab.home)


def test_two_relays(lab: Lab) -> None:
    """A second relay raises StoreBusy and changes nothing."""
    lab.say()
    with (
        exclusive(lab.postgres, LockKey.RELAY, "relay"),
        pytest.raises(StoreBusy, match="another relay or repair is running"),
    ):
        drain(lab.postgres, lab.ltm)
    assert [(0, False)] == attempts(lab)
    assert Drained(1, 1) == drain(lab.postgres, lab.ltm)


def test_an_embedder_of_another_size_is_refused_first(any_lab: Lab) -> None:
    """An embedder of another size raises DimensionMismatch before anything changes."""
    any_lab.settled()
    any_lab.say()
    before = any_lab.points(), any_lab.tables()
    other = with_embedder(any_lab, lambda texts: [[1.0] * (DIMS + 1) for _ in texts])
    with pytest.raises(DimensionMismatch):
        drain(any_lab.postgres, other)
    assert before == (any_lab.points(), any_lab.tables())


def test_what_is_enqueued_while_the_relay_runs_is_not_lost(lab: Lab) -> None:
    """An exchange that is edited after the relay has read it ends up with the new text."""
    [exchange] = lab.say()

    def edit(name: str) -> None:
        if name == "upsert" and not edited:
            edited.append(name)
            lab.sql("UPDATE conversation_history SET content = 'new' WHERE role = 'assistant'")
            lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(i)s)", i=exchange.anchor_id)

    edited: list[str] = []
    drain(lab.postgres, lab.with_store(Failing(lab.vectors, meanwhile=edit)))
    assert "new" == lab.point(exchange.anchor_id).payload["assistant_text"]
    assert lab.check().ok


def test_a_text_longer_than_a_request(open_lab: "partial[Lab]") -> None:
    """A batch of texts too long for one request is written all the same."""
    lab = open_lab("server")
    for number in range(12):
        lab.memory.remember(_long(number))
    lab.sync()
    assert lab.check().ok


def _long(number: int) -> NewExchange:
    return NewExchange(CHANNEL, ADA, A, f"{number} " + "x" * 2**20, "y")


def test_one_run_right_after_another(lab: Lab) -> None:
    """A drain that has returned holds no lock, so the next one can start at once."""
    for _ in range(40):
        relay.drain(lab.postgres, lab.ltm)
