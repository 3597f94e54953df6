"""Laws of the schema: stages, indexes and collections."""

from memsync.model.records import Exchange
from memsync.stores.history.catalog import RETRIEVAL_INDEX
from memsync.stores.ltm import Embedder, LongTermMemory
from support.lab import DIMS, B, Lab
from support.laws.base import Planted, law, one


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


@law("MSS007", "schema")
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


@law("MSS012", "home")
def another_size(lab: Lab, _: list[Exchange]) -> Planted:
    """An embedder is named whose vectors have one number more than those of the collection."""
    lab.settings = lab.settings.model_copy(update={"embedder": "named"})
    larger = Embedder("named", lambda texts: [[1.0] * (DIMS + 1) for _ in texts])
    lab.ltm = LongTermMemory(lab.vectors, lab.settings, larger)
    return Planted(
        one("vectors", expected=DIMS + 1, found=DIMS),
        next_command="memsync rules MSS012",
    )


@law("MSS013", "home")
def another_embedder(lab: Lab, said: list[Exchange]) -> Planted:
    """An embedder is named, and two memories were made by another one of the same size."""
    lab.settings = lab.settings.model_copy(update={"embedder": "test"})
    for each in said[:2]:
        lab.respell(each.anchor_id, embedder="app.models:older/8")
    return Planted(
        one(
            "app.models:older/8",
            expected="test/8",
            found="app.models:older/8",
            points=2,
            looked_at=8,
        ),
        next_command="MEMSYNC_EMBEDDER=app.models:older memsync check",
    )


@law("MSS011", "deployed")
def empty_collection(lab: Lab, _: list[Exchange]) -> Planted:
    """An empty deployed collection."""
    lab.vectors.create(f"persona-{B}", DIMS, {})
    return Planted(one(f"persona-{B}", points=0))
