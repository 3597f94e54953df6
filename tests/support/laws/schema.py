"""Laws of the schema: stages, indexes and collections."""

from dataclasses import replace
from functools import partial

from memsync.model.records import Exchange
from memsync.reconcile import acknowledge
from memsync.stores.history.catalog import RETRIEVAL_INDEX
from memsync.stores.ltm import Embedder, LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.marks import META
from memsync.stores.vectors.protocol import CollectionInfo
from support.failing import Failing
from support.lab import ADA, DIMS, B, C, Lab
from support.laws.base import Planted, law, one, spelled
from support.raw_vectors import misform


@law("MSS001", "schema")
def behind(lab: Lab, _: list[Exchange]) -> Planted:
    """A history that may hold messages without a persona."""
    lab.sql("ALTER TABLE conversation_history ALTER persona_id DROP NOT NULL")
    return Planted(
        one("stage", expected="contracted", found="backfilled"), next_command="memsync migrate plan"
    )


@law("MSS005", "schema")
def invalid_index(lab: Lab, _: list[Exchange]) -> Planted:
    """An index whose build was cut short."""
    lab.sql("CREATE INDEX cut_short ON conversation_history (role)")
    lab.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'cut_short'::regclass")
    return Planted(one("cut_short", valid=False), next_command="memsync migrate plan")


@law("MSS006", "schema")
def missing_index(lab: Lab, _: list[Exchange]) -> Planted:
    """The index that serves reading by persona is gone."""
    lab.sql(f"DROP INDEX {RETRIEVAL_INDEX}")
    return Planted(
        one(RETRIEVAL_INDEX, found=None),
        {"migration-behind": 1},
        next_command="memsync migrate plan",
    )


@law("MSS007", "home")
def missing_payload_index(lab: Lab, said: list[Exchange]) -> Planted:
    """A collection that was restored without one of its indexes."""
    kept = [lab.point(each.anchor_id) for each in said]
    indexes = dict(lab.ltm.codec.indexes)
    kind = indexes.pop("persona_id")
    lab.vectors.drop(lab.home)
    lab.vectors.create(lab.home, DIMS, indexes)
    lab.vectors.upsert(lab.home, kept)
    return Planted(
        one("persona_id", expected=str(kind), found=None), next_command="memsync sync run"
    )


@law("MSS011", "beside home")
def empty_collection(lab: Lab, _: list[Exchange]) -> Planted:
    """Collections of the app's, one of them empty, are counted together."""
    lab.vectors.create(f"persona-{B}", DIMS, {})
    lab.vectors.create(f"personality-{ADA}", DIMS, {})
    return _legacy(f"persona-{B}", 2)


@law("MSS011", "beside deployed")
def shared_collection(lab: Lab, _: list[Exchange]) -> Planted:
    """The shared collection is not the app's, nor are older ones."""
    lab.vectors.create(lab.home, DIMS, {})
    lab.vectors.create(f"personality-{ADA}", DIMS, {})
    return _legacy(min(lab.home, f"personality-{ADA}"), 2)


def _legacy(first: str, count: int) -> Planted:
    return Planted(
        one(first, collections=count),
        facts={"legacy-layout": count},
        next_command="memsync rules MSS011",
    )


@law("MSS012", "home", "deployed")
def another_size(lab: Lab, said: list[Exchange]) -> Planted:
    """An embedder is named whose vectors have one number more than those of the collections."""
    lab.settings = lab.settings.model_copy(update={"embedder": "named"})
    larger = Embedder("named", lambda texts: [[1.0] * (DIMS + 1) for _ in texts])
    if lab.deployed:
        # One collection has the size that it must have.
        lab.vectors.create(f"persona-{B}", DIMS + 1, {})
        for each in said[4:]:
            lab.lose(each)
        lab.vectors.drop(lab.place(said[-1]).collection)
        lab.unsay(*said[4:])
    lab.ltm = LongTermMemory(lab.vectors, lab.settings, larger, lab.ltm.layout)
    return Planted(
        one("vectors", expected=DIMS + 1, found=DIMS),
        facts={"foreign-point-id": 4} if lab.deployed else {},
        next_command="memsync rules MSS012",
    )


@law("MSS013", "home")
def another_embedder(lab: Lab, said: list[Exchange]) -> Planted:
    """An embedder is named, and two memories were made by another one of the same size."""
    lab.settings = lab.settings.model_copy(update={"embedder": "test"})
    for each in said[:2]:
        lab.respell(each, embedder="app.models:older/8")
    return Planted(
        one(
            "app.models:older/8",
            expected="test/8",
            found="app.models:older/8",
            points=2,
            looked_at=len(said),
        ),
        next_command="MEMSYNC_EMBEDDER=app.models:older memsync check",
    )


class _Measuring(Failing):
    """A store whose collections compare by another measure."""

    def describe(self, collection: str) -> CollectionInfo | None:
        found = super().describe(collection)
        return found and replace(found, distance="Dot")


@law("MSS014", "home", "deployed")
def another_measure(lab: Lab, said: list[Exchange]) -> Planted:
    """The collections compare by dot product."""
    if lab.deployed:
        for each in said[4:]:
            lab.lose(each)
        lab.vectors.drop(lab.place(said[-1]).collection)
        lab.unsay(*said[4:])
    lab.ltm = lab.with_store(_Measuring(lab.vectors))
    return Planted(
        one("vectors", expected="Cosine", found="Dot"),
        facts={"foreign-point-id": 4} if lab.deployed else {},
        next_command="memsync rules MSS014",
    )


@law("MSS015", "home")
def wrong_name(lab: Lab, said: list[Exchange]) -> Planted:
    """The setting names a collection that does not exist: one finding, and no missing points."""
    lab.settings = lab.settings.model_copy(update={"collection": "misspelt"})
    lab.ltm = LongTermMemory(lab.vectors, lab.settings, lab.ltm.embedder, lab.ltm.layout)
    return Planted(one("misspelt", exchanges=len(said)), next_command="memsync rules MSS015")


@law("MSS018", "outbox")
def rewound(lab: Lab, said: list[Exchange]) -> Planted:
    """The vector store has the mark of a batch that Postgres does not know."""
    lab.say()
    lab.sync()
    lab.sql("UPDATE memsync.mark SET settled = settled - 1")
    row = lab.sql("SELECT settled FROM memsync.mark")[0][0]
    return Planted(
        one("settled", postgres=row, vector_store=row + 1),
        facts=_one_more(lab, said),
        next_command="memsync rules MSS018",
    )


@law("MSS019", "outbox")
def made_anew(lab: Lab, said: list[Exchange]) -> Planted:
    """The vector store has the memories, and no mark."""
    lab.say()
    lab.sync()
    lab.vectors.drop(META)
    row = lab.sql("SELECT settled FROM memsync.mark")[0][0]
    return Planted(
        one("settled", postgres=row, vector_store=None),
        facts=_one_more(lab, said),
        next_command="memsync rules MSS019",
    )


@law("MSS021", "outbox")
def half_a_change(lab: Lab, _: list[Exchange]) -> Planted:
    """A change to the other layout was killed."""
    layout, change, command = {
        Layout.SHARED: ("shared", "returning", "per-persona"),
        Layout.PER_PERSONA: ("per-persona", "copying", "shared --app-stopped"),
    }[lab.ltm.layout]
    lab.sql(
        "INSERT INTO memsync.layout (layout, why, under_way) VALUES (%(l)s, 'test', %(c)s)"
        " ON CONFLICT (singleton) DO UPDATE SET under_way = excluded.under_way",
        l=layout,
        c=change,
    )
    return Planted(
        one(change, layout=layout), next_command=f"memsync reconcile layout set {command}"
    )


@law("MSS020", "outbox")
def outdated(lab: Lab, said: list[Exchange]) -> Planted:
    """A missing memory was acknowledged, and then it came back."""
    place = lab.place(said[0])
    point = lab.point(place.point_id, place.collection)
    lab.lose(said[0])
    with lab.check() as found, lab.postgres.session() as session:
        acknowledge(session, found, "known")
    lab.vectors.upsert(place.collection, [point])
    return Planted(
        one("outdated", outdated=1),
        facts={"baseline-outdated": 1},
        next_command="memsync reconcile baseline drop --outdated",
    )


def _one_more(lab: Lab, said: list[Exchange]) -> dict[str, int]:
    return {"foreign-point-id": len(said)} if lab.deployed else {}


def _repaired(lab: Lab, said: list[Exchange]) -> str:
    """A clean app in which a plan has mended two memories; the id of its run."""
    for each in said[:2]:
        lab.respell(each, **spelled(lab, each, created_at=each.created_at_ms // 1000))
    plan = lab.plan()
    lab.apply(plan)
    assert lab.check().ok, "a run whose copies are whole is no finding"
    return str(plan.plan_id)


def _lossy(statement: str, evidence: dict[str, int], lab: Lab, said: list[Exchange]) -> Planted:
    """A run of which the quarantine has lost something."""
    run = _repaired(lab, said)
    lab.sql(statement)
    nothing = {"copies_missing": 0, "copies_damaged": 0, "without_collection": 0}
    return Planted(
        one(run, **{"points": 2, **nothing, **evidence}), next_command="memsync reconcile runs"
    )


for _name, _statement, _evidence in (
    (
        "copy-missing",
        "DELETE FROM memsync.quarantine WHERE id = (SELECT min(id) FROM memsync.quarantine)",
        {"copies_missing": 1},
    ),
    ("all-missing", "TRUNCATE memsync.quarantine", {"copies_missing": 2}),
    (
        "payload-damaged",
        """UPDATE memsync.quarantine SET payload = '{}'
        WHERE id = (SELECT min(id) FROM memsync.quarantine)""",
        {"copies_damaged": 1},
    ),
    (
        "digest-damaged",
        "UPDATE memsync.quarantine SET digest = repeat('0', 64)",
        {"copies_damaged": 2},
    ),
):
    law("MSS016", "outbox", name=_name)(partial(_lossy, _statement, _evidence))


@law("MSS017", "deployed", name="named")
def vectors_under_names(lab: Lab, _: list[Exchange]) -> Planted:
    """A collection that somebody made with a vector under a name."""
    misform(lab.vectors, f"persona-{C}", DIMS, named=True)
    return _unsearchable("its vectors under names")


@law("MSS017", "deployed", name="several")
def several_vectors(lab: Lab, _: list[Exchange]) -> Planted:
    """A collection that somebody made for several vectors of each point."""
    misform(lab.vectors, f"persona-{C}", DIMS, named=False)
    return _unsearchable("several vectors for a point")


def _unsearchable(found: str) -> Planted:
    return Planted(one("vectors", found=found), next_command="memsync rules MSS017")


NOT_EVERYWHERE = {(code, Layout.PER_PERSONA) for code in ("MSS007", "MSS013", "MSS015")} | {
    ("MSS017", Layout.SHARED)
}
"""The app's collections have no payload indexes, and its payloads name no embedder; one of them may
be missing. A shared collection of another form ends every command.
"""
