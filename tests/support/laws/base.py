"""A law: a fault planted in a clean app, and what `memsync check` must then report.

Where a law plants says in which layout it holds: at `home` of the shared layout or of the app's
own (`deployed`), or in a collection that this layout does not read (`beside home`, `beside
deployed`). Laws of the outbox, the history and the schema hold in both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from memsync.model.records import Exchange, to_ms
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.ledger import Entry, Ledger
from support.lab import LONG_AGO, Lab

OLD_MS = to_ms(LONG_AGO) - 86_400_000
PLAN = "memsync reconcile plan"
OWNER = "cccccccc-0000-4000-8000-000000000001"
"""The user of the personas A and B. A is the default one."""
UNSAFE = f"{PLAN} --unsafe --out plan-unsafe.json"

Where = Literal["home", "deployed", "beside home", "beside deployed", "outbox", "history", "schema"]
_LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "home": (Layout.SHARED,),
    "beside home": (Layout.SHARED,),
    "deployed": (Layout.PER_PERSONA,),
    "beside deployed": (Layout.PER_PERSONA,),
}


@dataclass(frozen=True)
class Planted:
    """The findings to expect: the evidence of this code by key, how many other faults there are,
    and how many points each fact is about, where it is not what it was in the clean app.

    `left` is what no plan repairs, beyond what is report-only.
    """

    evidence: Mapping[str, Mapping[str, object]]
    others: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, int] = field(default_factory=dict)
    next_command: str = PLAN
    left: Mapping[str, int] | None = None


Plant = Callable[[Lab, list[Exchange]], Planted]


@dataclass(frozen=True)
class Law:
    """A law of a code. `plant` plants the fault in an app whose exchanges it is given."""

    code: str
    where: Where
    name: str
    plant: Plant

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The layouts in which it holds."""
        return _LAYOUTS.get(self.where, tuple(Layout))

    @property
    def alters(self) -> bool:
        """Whether it alters the schema of the database."""
        return self.where in {"history", "schema"}


LAWS: list[Law] = []


def law(code: str, *where: Where, name: str = "") -> Callable[[Plant], Plant]:
    """Register a law for a code, once for each place where it plants."""

    def register(plant: Plant) -> Plant:
        called = name or getattr(plant, "__name__", "")
        LAWS.extend(Law(code, each, called, plant) for each in where)
        return plant

    return register


def noted(lab: Lab, said: list[Exchange]) -> None:
    """Write the memories of these exchanges down in the ledger, as they stand."""
    entries = []
    for each in said:
        place = lab.place(each)
        payload = lab.point(place.point_id, place.collection).payload
        memory = lab.ltm.codec_of(place.collection).decode(payload).memory
        entries.append(Entry.of(place, memory, each))
    with lab.postgres.session() as session:
        Ledger(session).note(entries)


def one(key: object, **evidence: object) -> dict[str, dict[str, object]]:
    """The evidence of one finding."""
    return {str(key): evidence}


def key(lab: Lab, exchange: Exchange) -> str:
    """The key of a finding about the memory of an exchange."""
    return str(lab.place(exchange).point_id)


def spelled(lab: Lab, exchange: Exchange, **values: object) -> dict[str, object]:
    """Values of a payload, by the keys of the collection where the exchange's memory lies."""
    codec = lab.ltm.codec_of(lab.place(exchange).collection)
    return {codec.key(name): value for name, value in values.items()}
