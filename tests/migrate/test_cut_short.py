"""Runs that are cut short at seeded statements, in every way, forward and back.

The next run ends where an undisturbed one ends: same catalog, same personas, same contents; and
nothing that was committed is done a second time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from memsync.stores.history.phases import Phase
from memsync.stores.postgres import OWN_STATEMENT
from support.doomed import acts
from support.kills import (
    IN_PLACE,
    Way,
    WayBack,
    all_cut_short,
    assert_no_batch_twice,
    done_so_far,
    drawn,
    offered_methods,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.app import App

    Eventually = Callable[[Callable[[], bool], str], None]
    NewWay = Callable[[type[Way], str, str], Way]

# How many runs of each kind are cut short: FEW for all methods together, MANY (--slow) for each.
FEW = {
    (Way, "client"): 4,
    (Way, "terminate"): 2,
    (Way, "server"): 2,
    (WayBack, "client"): 2,
    (WayBack, "terminate"): 2,
    (WayBack, "server"): 1,
}
MANY = {
    (Way, "client"): 90,
    (Way, "terminate"): 60,
    (Way, "server"): 20,
    (WayBack, "client"): 70,
    (WayBack, "terminate"): 50,
    (WayBack, "server"): 20,
}

every_kind = pytest.mark.parametrize(
    ("direction", "fate"), list(FEW), ids=[f"{way.name}-{fate}" for way, fate in FEW]
)
every_method = pytest.mark.parametrize("method", offered_methods())


def test_enough_is_tried() -> None:
    """The counts are what CONTRIBUTING promises."""
    assert sum(FEW.values()) >= 12
    assert sum(MANY.values()) >= 300
    assert FEW.keys() == MANY.keys()


@pytest.mark.parametrize("own", ["", f"{OWN_STATEMENT} "], ids=["plain", "named"])
@pytest.mark.parametrize(
    ("statement", "does_more"),
    [
        ("SELECT 1", False),
        ("SHOW server_version", False),
        ("WITH a AS (SELECT 1) SELECT * FROM a", False),
        ("SELECT set_config('enable_seqscan', 'off', true)", False),
        ("SELECT FROM pg_locks WHERE locktype = 'advisory'", False),
        ("SELECT setval('memsync.user_id_written_at', 1)", True),
        ("SELECT memsync.create_default_persona(%(user_id)s)", True),
        ("SELECT pg_try_advisory_lock(1)", True),
        ("SELECT id FROM users ORDER BY id FOR NO KEY UPDATE", True),
        ("WITH gone AS (DELETE FROM t RETURNING id) SELECT count(*) FROM gone", True),
        ("UPDATE t SET a = 1", True),
        ("VACUUM t", True),
        ("CREATE SCHEMA memsync", True),
    ],
)
def test_an_end_is_drawn_among_what_acts(statement: str, own: str, *, does_more: bool) -> None:
    """A statement that only reads is not drawn as an end, with or without memsync's own mark."""
    assert does_more == acts(own + statement)


def test_work_done_twice_is_seen(app: App, way_for: NewWay) -> None:
    """A row that is written again, or that the checkpoint does not count, fails the assertion."""
    way = way_for(Way, "client", IN_PLACE)
    app.run(Phase.BACKFILL)
    before = done_so_far(app, way)
    assert before.rows_total == before.rows_done
    assert_no_batch_twice(app, way, before)

    app.do("UPDATE memsync.backfill SET rows_done = rows_done - 1")
    with pytest.raises(AssertionError):
        assert_no_batch_twice(app, way, done_so_far(app, way))
    app.do(
        "UPDATE conversation_history SET content = content"
        " WHERE id = (SELECT id FROM conversation_history LIMIT 1)"
    )
    with pytest.raises(AssertionError):
        assert_no_batch_twice(app, way, before)


@every_method
@every_kind
def test_a_run_cut_short_is_finished_by_the_next(
    way_for: NewWay,
    eventually: Eventually,
    seed: int,
    direction: type[Way],
    fate: str,
    method: str,
) -> None:
    """After a client was killed, a session ended or a server stopped, the next run finishes."""
    way = way_for(direction, fate, method)
    kills = -(-FEW[direction, fate] // len(offered_methods()))
    ends = drawn(f"{seed}/{way.name}/{fate}/{method}", fate, way.acting, kills)
    all_cut_short(way, ends, eventually, seed)


@pytest.mark.slow
@every_method
@every_kind
def test_a_run_cut_short_is_finished_by_the_next_many_times(
    way_for: NewWay,
    eventually: Eventually,
    seed: int,
    direction: type[Way],
    fate: str,
    method: str,
) -> None:
    """The same holds at hundreds of statements."""
    way = way_for(direction, fate, method)
    kills = MANY[direction, fate]
    ends = drawn(f"{seed}/many/{way.name}/{fate}/{method}", fate, way.acting, kills)
    all_cut_short(way, ends, eventually, seed)
