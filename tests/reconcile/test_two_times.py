"""Stores of two times: a database from a backup, a store made anew, another URL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest

from memsync.errors import GateClosed, SettingsError, StalePlan
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.marks import META
from memsync.stores.postgres import Postgres, Session
from support.failing import Failing
from support.lab import A, Lab
from support.ledger import adopt, aged, agrees
from support.relayout import back, retire, to_shared
from support.repairs import audit_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.postgres import NewDatabase


@pytest.fixture(params=Layout)
def lab(request: pytest.FixtureRequest, open_lab: partial[Lab]) -> Lab:
    """A lab on the store in memory, in each of the layouts."""
    return open_lab(layout=request.param.value)


@pytest.fixture
def own_lab(open_lab: partial[Lab], own_database: str) -> Lab:
    """A lab on a database of its own, which is copied."""
    return open_lab(url=own_database)


@pytest.fixture
def restored(own_lab: Lab, new_database: NewDatabase, own_database: str) -> Iterator[Lab]:
    """The lab's stores, the database as a dump had it before the last exchanges were written."""
    own_lab.settled()
    own_lab.postgres.close()
    name = psycopg.conninfo.conninfo_to_dict(own_database)["dbname"]
    copy = new_database(template=str(name))
    with Postgres.open(own_database) as postgres:
        own_lab.postgres = postgres
        own_lab.said = own_lab.exchanges()
        own_lab.say(3)
        own_lab.sync()
    with Postgres.open(copy) as postgres:
        own_lab.postgres, own_lab.url = postgres, copy
        yield own_lab


def test_a_database_from_a_backup_is_told(restored: Lab) -> None:
    """Also after it has caught up; until somebody decides, nothing is removed for lack of a row."""
    lab = restored
    before = lab.points()
    assert 1 == lab.check().counts["store-rewound"]
    assert () == lab.plan().actions
    for _ in range(4):
        lab.say()
        lab.sync()
    gate = lab.check()
    assert (1, 0) == (gate.counts["store-rewound"], len(lab.plan(gate).actions))
    assert all(item in lab.points()[lab.home] for item in before[lab.home])
    with pytest.raises(GateClosed, match="--anew"):
        adopt(lab)
    adopt(lab, anew=True)
    assert [(True,)] == lab.sql("SELECT is_set FROM memsync.mark"), "the store is watched at once"
    assert "store-rewound" not in lab.check().counts
    lab.say()
    lab.sync()
    assert "store-rewound" not in lab.check().counts


def test_an_undo_does_not_hide_it(own_lab: Lab) -> None:
    """Its batches count too; what was seen before them is noted first."""
    lab = own_lab
    lab.lose(lab.settled()[0])
    plan = lab.plan()
    lab.apply(plan)
    lab.sql("UPDATE memsync.mark SET settled = settled - 1")
    lab.undo(plan)
    assert 1 == lab.check().counts["store-rewound"]


class _Moved(Failing):
    """The same store under another URL."""

    @property
    def label(self) -> str:
        """The new place."""
        return "a store that was moved"


def test_a_store_that_was_moved_is_the_same(open_lab: partial[Lab]) -> None:
    """Its mark says so. A run in it can be undone, unless memories lie in another layout now."""
    lab = open_lab()
    lab.lose(lab.settled()[0])
    plan, before = lab.plan(), lab.memories()
    lab.apply(plan, _Moved(lab.vectors))
    for layout in (Layout.PER_PERSONA, Layout.SHARED):
        lab.sql("UPDATE memsync.layout SET layout = %(to)s", to=layout)
        lab.ltm = lab.ltm.in_layout(layout, "")
        if layout is Layout.PER_PERSONA:
            with pytest.raises(StalePlan, match="layout set shared"):
                lab.undo(plan)
    lab.undo(plan)
    assert before == lab.memories()


def test_what_names_no_mark_is_for_its_url(lab: Lab) -> None:
    """A mark says of another URL that it is the same store, and a plan of before it has none."""
    lab.settled()
    lab.lose(lab.said[0])
    lab.vectors.drop(META)
    lab.sql("TRUNCATE memsync.mark")
    plan, moved = lab.plan(), _Moved(lab.vectors)
    assert plan.target.mark is None
    lab.apply(plan)
    later = lab.plan()
    assert later.target.mark is not None
    lab.apply(later, moved)
    with pytest.raises(StalePlan, match="this is a store that was moved"):
        lab.apply(plan, moved)
    # The run got the mark that it made.
    assert 1 == lab.undo(plan, moved).done
    lab.apply(plan)
    before = lab.points()
    lab.sql("UPDATE memsync.repair SET target = (target::jsonb - 'mark')::json")
    with pytest.raises(StalePlan, match="this is a store that was moved"):
        lab.undo(plan, moved)
    assert before == lab.points()


def test_a_plan_of_before_removes_nothing_then(restored: Lab) -> None:
    """A saved plan with a removal for lack of a row is refused before its first write."""
    lab = restored
    orphaned = sorted(lab.exchanges(), key=lambda each: each.created_at_ms)[1]
    lab.unsay(orphaned)
    lab.sql("TRUNCATE memsync.memories")
    gate = lab.audit()
    trusted = [each for each in gate.findings if each.name != "store-rewound"]
    plan = lab.plan(audit_of(trusted))
    assert any(each.is_only_copy for each in plan.actions)
    before = lab.points()
    with pytest.raises(GateClosed, match="older than what was written"):
        lab.apply(plan)
    assert before == lab.points()


@pytest.mark.parametrize("seen", ["rewound_at) VALUES (now())", "is_set) VALUES (true)"])
def test_the_layout_stays_as_it_is_then(quick: Lab, seen: str) -> None:
    """A way back would bring older words, and a retirement fill another database's quarantine."""
    to_shared(quick)
    quick.sql(f"INSERT INTO memsync.mark ({seen}")
    before = quick.points(), quick.tables()
    for change in (back, retire, to_shared):
        with pytest.raises(GateClosed, match=r"Nothing was changed.*adopt --anew"):
            change(quick)
    assert before == (quick.points(), quick.tables())


def test_a_store_that_is_made_anew_is_told(lab: Lab) -> None:
    """The mark is gone with everything else; memories that have rows are made again."""
    said = lab.settled()
    adopt(lab)
    aged(lab, timedelta(seconds=30))
    for name in lab.vectors.collections():
        lab.vectors.drop(name)
    counts = lab.check().counts
    assert 1 == counts["collection-recreated"]
    assert "archived-missing" not in counts
    if lab.ltm.layout is Layout.SHARED:
        lab.vectors.create(lab.home, lab.ltm.embedder.dims, lab.ltm.codec.indexes)
    adopt(lab, anew=True)
    lab.apply(lab.plan())
    assert lab.check().ok
    assert len(said) - 1 == agrees(lab)


def test_the_url_of_another_store_is_told(lab: Lab, open_lab: partial[Lab]) -> None:
    """Another app's store: nothing is removed from it."""
    lab.settled()
    adopt(lab)
    other = open_lab(url=lab.url, layout=lab.ltm.layout.value)
    other.put(UUID(int=7), {"content": "theirs", "persona_id": str(A), "personaId": str(A)})
    gate = other.check()
    assert 1 == gate.counts["collection-recreated"]
    assert not [each for each in other.plan(gate).actions if each.is_only_copy]


def test_a_plan_is_for_the_very_store(lab: Lab, open_lab: partial[Lab]) -> None:
    """Another one may answer under the same URL, with marks of the same database."""
    said = lab.settled()
    lab.sync()
    lab.say()
    lab.sync()
    lab.lose(said[0])
    plan = lab.plan()
    other = open_lab(url=lab.url, layout=lab.ltm.layout.value)
    other.sql("UPDATE memsync.mark SET is_set = false")
    other.say()
    other.sync()
    before = other.points()
    with pytest.raises(StalePlan, match=r"vector store with the mark .+, this is .+"):
        other.apply(plan)
    assert before == other.points()
    lab.sql("UPDATE memsync.mark SET settled = settled + 1")
    assert 1 == lab.apply(plan).done
    with pytest.raises(StalePlan, match=r"made on the vector store .+ before it got another mark"):
        other.undo(plan)
    unmarked = replace(plan, plan_id=UUID(int=9), target=replace(plan.target, mark=None))
    other.apply(unmarked)


def test_the_mark_is_one_small_point(lab: Lab) -> None:
    """It is under the id of the database, and a drain without work writes none."""
    assert META not in lab.vectors.collections()
    lab.say()
    lab.sync()
    [(instance,)] = lab.sql("SELECT id FROM memsync.instance")
    payload = lab.point(instance, META).payload
    assert (1, {"settled", "store"}) == (payload["settled"], set(payload))
    lab.sync()
    assert payload == lab.point(instance, META).payload
    lab.say()
    lab.sync()
    assert {**payload, "settled": 2} == lab.point(instance, META).payload


def test_a_key_that_may_not_write_the_mark(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The relay goes on without it, and the log says what is lost."""
    real = type(lab.vectors).create

    def create(store: Any, collection: str, *args: Any) -> None:
        if collection == META:
            raise SettingsError("refuses the API key", field="qdrant_api_key")
        real(store, collection, *args)

    monkeypatch.setattr(type(lab.vectors), "create", create)
    lab.say()
    lab.sync()
    assert "a restored store goes unnoticed" in caplog.text
    assert lab.check().ok


def _on_a_standby(_: Lab, patch: pytest.MonkeyPatch) -> None:
    real = Session.row

    def row(session: Session, name: str, /, **params: Any) -> Any:
        found = real(session, name, **params)
        return found._replace(yes=True) if name == "is_standby" else found

    patch.setattr(Session, "row", row)


def _with_a_key_for_memories(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    real = type(lab.vectors).describe

    def describe(store: Any, collection: str) -> Any:
        if collection == META:
            raise SettingsError("refuses the API key", field="qdrant_api_key")
        return real(store, collection)

    patch.setattr(type(lab.vectors), "describe", describe)


def _without_its_table(lab: Lab, _: pytest.MonkeyPatch) -> None:
    lab.sql("DROP TABLE memsync.mark")
    lab.ltm = lab.with_store(lab.vectors)


def test_a_mark_that_was_not_looked_at_is_not_clean(own_lab: Lab) -> None:
    """The reports say so, and why; everything was read all the same."""
    lab, codes = own_lab, {"MSS018", "MSS019"}
    lab.settled()
    assert codes <= lab.audit().looked_for
    for hide, why in (
        (_on_a_standby, "Postgres is a standby"),
        (_with_a_key_for_memories, f"the API key may not read the collection {META}"),
        (_without_its_table, "Postgres has no table memsync.mark"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            hide(lab, patch)
            found = lab.audit()
        assert set() == codes & found.looked_for, why
        [line] = found.left_out
        assert line.startswith(f"whether both stores are of one time: {why}")
        assert found.ok


def test_what_was_known_of_a_mark_stays_known(
    own_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also to an API key that may not see it."""
    own_lab.settled()
    own_lab.sql("UPDATE memsync.mark SET rewound_at = now()")
    _with_a_key_for_memories(own_lab, monkeypatch)
    assert {"store-rewound": 1} == own_lab.audit().counts


def test_the_grants_of_an_app_that_drains_the_outbox(own_lab: Lab) -> None:
    """What docs/operate.md grants is enough for its relay."""
    lab = own_lab
    lab.sql("CREATE ROLE drainer LOGIN")
    try:
        for grant in (
            "USAGE ON SCHEMA public, memsync",
            "SELECT ON ALL TABLES IN SCHEMA public",
            "SELECT, INSERT, UPDATE, DELETE ON memsync.outbox",
            "INSERT ON memsync.layout",
            "SELECT, INSERT, UPDATE, DELETE ON memsync.memories",
            "SELECT, INSERT, UPDATE ON memsync.mark",
            "SELECT ON memsync.instance",
        ):
            lab.sql(f"GRANT {grant} TO drainer")
        lab.say()
        with Postgres.open(lab.url.replace("postgres@", "drainer@", 1)) as app:
            lab.postgres = app
            lab.sync()
        assert [("live",)] == lab.sql("SELECT state FROM memsync.memories")
    finally:
        lab.sql("DROP OWNED BY drainer; DROP ROLE drainer")
