"""Tests that check says which runs can no longer be undone whole, and reads no more than a page.

The damages of copies have their laws in support/laws/schema.py.
"""

import re
from functools import partial
from uuid import uuid4

import pytest

from memsync.errors import PartlyDone, SchemaMismatch
from memsync.reconcile import older, undoable
from memsync.reconcile.plans import Plan
from memsync.reconcile.rules.schema import UndoNotPossible
from memsync.reconcile.state import State
from memsync.reconcile.undoable import NotWhole
from memsync.stores.history.catalog import Catalog
from memsync.stores.postgres import statements_of
from support.lab import DIMS, Lab
from support.repairs import spoiled

Open = partial[Lab]
LAYOUTS = ("shared", "per-persona")
OWN_SCHEMA = "migrate/isolate/own_schema.sql"


def lost(lab: Lab, days: int = 30) -> list[NotWhole]:
    """The runs that cannot be undone whole."""
    with lab.postgres.session() as session:
        found = undoable.undoable(session, lab.ltm, days)
    assert () == found.left_out
    return list(found.lost)


def repaired(lab: Lab) -> Plan:
    """A run with every kind of action, in an app with every kind of fault."""
    plan = spoiled(lab).plan()
    lab.apply(plan)
    return plan


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("page", [1, 3, 200])
def test_a_run_that_is_whole_is_no_finding(
    open_lab: Open, layout: str, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the run did, in part or whole, and however it is read."""
    monkeypatch.setattr(undoable, "_PAGE", page)
    lab = open_lab(layout=layout)
    plan = spoiled(lab).plan()
    lab.apply(plan, limit=3)
    assert [] == lost(lab)
    lab.apply(plan)
    assert [] == lost(lab)
    lab.sql("UPDATE memsync.quarantine SET digest = repeat('0', 64)")
    [(copies,)] = lab.sql("SELECT count(*) FROM memsync.quarantine")
    [run] = lost(lab)
    assert (plan.plan_id, 0, copies, 0) == (
        run.run_id,
        run.missing,
        run.damaged,
        run.without_collection,
    )
    assert len(plan.actions) == run.points


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_finding_tells_what_an_undo_does(open_lab: Open, layout: str) -> None:
    """As many points as are missing or damaged are left as they are by the undo itself.

    Of a point that was moved, the undo would leave the copy as well.
    """
    lab = open_lab(layout=layout)
    plan = repaired(lab)
    copies = lab.sql(
        """SELECT id FROM memsync.quarantine q WHERE NOT EXISTS (
            SELECT FROM memsync.journal j
            WHERE (j.source_collection, j.source_id) = (q.collection, q.point_id))
        ORDER BY vector IS NULL DESC, id"""
    )
    lab.sql(
        "DELETE FROM memsync.quarantine WHERE id = ANY(%(ids)s)", ids=[i for (i,) in copies[:2]]
    )
    lab.sql("UPDATE memsync.quarantine SET vector[1] = 7 WHERE id = %(id)s", id=copies[-1][0])
    [run] = lost(lab)
    assert (2, 1) == (run.missing, run.damaged)
    with pytest.raises(PartlyDone, match="undo is not possible") as caught:
        lab.undo(plan)
    assert 3 == caught.value.fields["set_aside"]
    [left] = lost(lab)
    assert (3, 2, 1) == (left.points, left.missing, left.damaged)


def test_a_check_reads_so_many_copies_and_says_what_it_left_out(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large repair does not slow each check down; that its copies are there is always asked."""
    repaired(lab)
    lab.sql("UPDATE memsync.quarantine SET digest = repeat('0', 64)")
    [(copies,)] = lab.sql("SELECT count(*) FROM memsync.quarantine")
    for limit in (0, 3, copies, copies + 1):
        monkeypatch.setattr(undoable, "_COPIES_MAX", limit)
        with lab.postgres.session() as session:
            found = undoable.undoable(session, lab.ltm, 30)
        assert min(limit, copies) == sum(each.damaged for each in found.lost)
        said = [f"the digests of {copies - limit} older copies in memsync.quarantine"]
        assert found.left_out == tuple(said if limit < copies else [])
    lab.sql("DELETE FROM memsync.quarantine WHERE id = (SELECT max(id) FROM memsync.quarantine)")
    monkeypatch.setattr(undoable, "_COPIES_MAX", 0)
    assert {"undo-not-possible": 1} == lab.check().counts


def test_what_is_undone_needs_no_copy(lab: Lab) -> None:
    """After an undo the copies may go."""
    plan = repaired(lab)
    lab.undo(plan)
    lab.sql("TRUNCATE memsync.quarantine")
    assert [] == lost(lab)


def test_a_copy_without_the_vector_that_it_needs_is_missing(lab: Lab) -> None:
    """A point that was removed cannot come back without its vector; one that was patched can."""
    repaired(lab)
    [(needed,)] = lab.sql(
        "SELECT count(*) FROM memsync.journal WHERE action <> 'patch' AND state_before IS NOT NULL"
    )
    lab.sql("UPDATE memsync.quarantine SET vector = NULL")
    [run] = lost(lab)
    assert needed == run.missing


@pytest.mark.parametrize("dims", [None, DIMS + 1])
def test_a_collection_that_is_gone_or_of_another_size(lab: Lab, dims: int | None) -> None:
    """No copy goes into a collection that does not take it; a payload goes into any size."""
    repaired(lab)
    [(old, written)] = lab.sql(
        """SELECT count(*), count(*) FILTER (WHERE action <> 'patch') FROM memsync.journal
        WHERE state_before IS NOT NULL AND collection = %(home)s""",
        home=lab.home,
    )
    assert 0 < written < old
    lab.vectors.drop(lab.home)
    if dims is not None:
        lab.vectors.create(lab.home, dims, {})
    [run] = lost(lab)
    assert (0, 0, old if dims is None else written) == (
        run.missing,
        run.damaged,
        run.without_collection,
    )
    lab.sql(
        """INSERT INTO memsync.retired (run_id, collection, dims, indexes, dropped_at)
        VALUES (gen_random_uuid(), %(home)s, 8, '[]', now())""",
        home=lab.home,
    )
    assert [] == lost(lab), "what was retired comes back with the layout"
    lab.sql("UPDATE memsync.retired SET restored_at = now()")
    assert [run] == lost(lab), "what came back, and is gone again, does not"


def test_a_run_on_another_store_is_judged_by_its_copies(lab: Lab) -> None:
    """This store says nothing about the collections of that one."""
    repaired(lab)
    lab.sql('UPDATE memsync.repair SET target = (target::jsonb || \'{"vectors": "x"}\')::json')
    lab.vectors.drop(lab.home)
    assert [] == lost(lab)
    lab.sql("TRUNCATE memsync.quarantine")
    assert 1 == len(lost(lab))


@pytest.mark.parametrize("column", ["intended_at", "undone_at"])
def test_only_the_days_of_the_quarantine_count(lab: Lab, column: str) -> None:
    """A run whose time is over is forgotten by design; its last work counts, as in the purge."""
    repaired(lab)
    lab.sql("TRUNCATE memsync.quarantine")
    lab.sql("UPDATE memsync.repair SET begun_at = now() - interval '31 days'")
    lab.sql("UPDATE memsync.journal SET intended_at = now() - interval '31 days'")
    assert [] == lost(lab)
    assert 1 == len(lost(lab, days=32))
    if column == "intended_at":
        lab.sql(
            """UPDATE memsync.journal SET intended_at = now()
            WHERE id = (SELECT min(id) FROM memsync.journal)"""
        )
    else:
        lab.sql(
            """UPDATE memsync.journal SET undone_at = now()
            WHERE id = (SELECT min(id) FROM memsync.journal)"""
        )
    assert 1 == len(lost(lab))


def test_a_role_that_may_not_read_the_quarantine_is_told_so(lab: Lab) -> None:
    """The quarantine holds people's words, so a role that only checks need not see it."""
    repaired(lab)
    lab.sql("TRUNCATE memsync.quarantine")
    assert {"undo-not-possible": 1} == lab.check().counts
    assert () == lab.check().left_out
    assert {} == lab.audit().counts, "only check asks"
    name = f"memsync_reader_{uuid4().hex}"
    lab.sql(f"CREATE ROLE {name}")
    try:
        with lab.postgres.session() as session:
            session.run_script(f"GRANT USAGE ON SCHEMA memsync TO {name}")
            session.run_script(f"GRANT SELECT ON ALL TABLES IN SCHEMA memsync TO {name}")
            session.run_script(f"REVOKE SELECT ON memsync.quarantine FROM {name}")  # noqa: S608  a name of ours
            session.run_script(f"SET ROLE {name}")
            state = State(
                session, lab.ltm, lab.settings, Catalog.read(session), homes=[], elsewhere=[]
            )
            assert [] == list(UndoNotPossible().look(state))
            [why] = state.undoable.left_out
            assert "may not read memsync.quarantine" in why
            session.run_script("RESET ROLE")
    finally:
        lab.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_tables_of_an_older_memsync(lab: Lab) -> None:
    """What reads leaves out whether an undo would work; what writes is refused before it does."""
    plan = spoiled(lab).plan()
    lab.apply(plan, limit=3)
    added = [each for each in statements_of(OWN_SCHEMA) if "ALTER TABLE memsync." in each]
    before = lab.points(), lab.tables()
    for table, columns in older.LATER.items():
        for column in columns:
            lab.sql(f"ALTER TABLE {table} DROP COLUMN {column}")
            lacking = f"has no {table}.{column}: an older memsync .* `memsync migrate run` adds"
            try:
                looked = lab.check()
                with lab.postgres.session() as session:
                    [run], left_out = undoable.kept(session, lab.ltm)
                for write in (lab.apply, lab.undo):
                    with pytest.raises(SchemaMismatch, match=lacking):
                        write(plan)
            finally:
                lab.sql("; ".join(added))
            assert looked.complete
            assert UndoNotPossible.code not in looked.looked_for
            assert "no" == run.undo
            for said in (run.why_not, *looked.left_out, *left_out):
                assert re.search(lacking, str(said))
            assert before == (lab.points(), lab.tables())


def test_every_column_that_was_added_is_asked_for() -> None:
    """A statement of repairs fails where one is missing."""
    added = {
        (table, column)
        for each in statements_of(OWN_SCHEMA)
        for table in re.findall(r"^ALTER TABLE (memsync\.\w+)", each, re.MULTILINE)
        if table in older.LATER
        for column in re.findall(r"ADD COLUMN IF NOT EXISTS (\w+)", each)
    }
    assert added == {(table, each) for table, some in older.LATER.items() for each in some}
