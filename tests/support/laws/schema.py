"""Laws of the schema: stages, indexes and collections."""

from memsync.model.records import Exchange
from memsync.stores.history.catalog import RETRIEVAL_INDEX
from support.lab import DIMS, B, Lab
from support.laws.base import Planted, law, one


@law("MSS001", "schema")
def behind(lab: Lab, _: list[Exchange]) -> Planted:
    """A history that may hold messages without a persona."""
    lab.sql("ALTER TABLE conversation_history ALTER persona_id DROP NOT NULL")
    return Planted(
        one("stage", expected="contracted", found="backfilled"), next_command="memsync migrate run"
    )


@law("MSS005", "schema")
def invalid_index(lab: Lab, _: list[Exchange]) -> Planted:
    """An index whose build was cut short."""
    lab.sql("CREATE INDEX cut_short ON conversation_history (role)")
    lab.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'cut_short'::regclass")
    return Planted(one("cut_short", valid=False), next_command="memsync migrate run")


@law("MSS006", "schema")
def missing_index(lab: Lab, _: list[Exchange]) -> Planted:
    """The index that serves reading by persona is gone."""
    lab.sql(f"DROP INDEX {RETRIEVAL_INDEX}")
    return Planted(
        one(RETRIEVAL_INDEX, found=None),
        {"migration-behind": 1},
        next_command="memsync migrate run",
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


@law("MSS011", "deployed")
def empty_collection(lab: Lab, _: list[Exchange]) -> Planted:
    """An empty deployed collection."""
    lab.vectors.create(f"persona-{B}", DIMS, {})
    return Planted(one(f"persona-{B}", points=0))
