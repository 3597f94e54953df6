"""An app's memories of every kind, and the changes of layout that tests make with them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING
from uuid import UUID

from memsync.reconcile import relayout, retirement
from memsync.stores.ltm.record import recorded
from support.lab import ADA, A, C, Lab, embed
from support.laws.base import OLD_MS
from support.releasing import released

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memsync.model.records import Exchange
    from memsync.settings import Settings
    from memsync.stores.vectors.protocol import VectorStore

EMBEDDER = "support.lab:embed"
CLASH = UUID("dddddddd-0000-4000-8000-000000000001")


def deploy(lab: Lab) -> Lab:
    """Deploy memories: skewed, enriched, without keys, with the anchor's id, and archived ones of
    which two have one id; a personality's collection has a copy.
    """
    said = say(lab, 4) + say(lab, 3, C)
    first, second, third, fourth, of_c, *rest = said
    lab.deploy(first, createdAt=first.created_at_ms - 2500, liked=True)
    lab.deploy(
        second,
        createdAt=second.created_at_ms + 1500,
        content=f"User (Al): {second.user_text} [a cat]\nAda: {second.assistant_text}",
    )
    lab.deploy(third, personaId=None, channelId=None)
    lab.deploy(fourth, point_id=fourth.anchor_id, messageIds=[str(fourth.said_id)])
    copied = lab.deploy(of_c, point_id=12)
    for each in rest:
        lab.deploy(each)
    lab.deploy(first, point_id=CLASH, createdAt=OLD_MS, content="User (Al): before\nAda: all")
    lab.deploy(of_c, point_id=CLASH, createdAt=OLD_MS + 1, content="User (Bo): then\nAda: ok")
    lab.deploy(of_c, point_id=7, createdAt=OLD_MS + 2, content="User (Bo): so\nAda: hm")
    lab.put(copied.id, copied.payload, f"personality-{ADA}")
    assert lab.audit().ok
    return lab


def say(lab: Lab, number: int, persona: UUID = A) -> list[Exchange]:
    """Rows that the app wrote, which nothing waits to write a memory of."""
    writer = dataclasses.replace(lab, settings=with_writer(lab))
    said = writer.say(number, persona=persona)
    lab.sql("DELETE FROM memsync.outbox")
    return said


def with_writer(lab: Lab) -> Settings:
    return lab.settings.model_copy(update={"writer": "memsync"})


def home(persona: UUID) -> str:
    """The persona's collection."""
    return f"persona-{persona}"


def to_shared(lab: Lab, vectors: VectorStore | None = None) -> relayout.Changed:
    """Change the layout, and let the lab follow."""
    ltm = lab.with_store(vectors) if vectors else lab.ltm
    with released(lab.url):
        changed = relayout.set_shared(lab.postgres, ltm, lab.settings, app_stopped=True)
    follow(lab)
    return changed


def back(lab: Lab, vectors: VectorStore | None = None) -> relayout.Changed:
    """Change it back, and let the lab follow."""
    ltm = lab.with_store(vectors) if vectors else lab.ltm
    with released(lab.url):
        changed = relayout.set_per_persona(lab.postgres, ltm, lab.settings)
    follow(lab)
    return changed


def retire(
    lab: Lab, vectors: VectorStore | None = None, *, unsafe: bool = False
) -> retirement.Retired:
    """Retire what the shared layout does not read."""
    ltm = lab.with_store(vectors) if vectors else lab.ltm
    with released(lab.url):
        return retirement.retire(lab.postgres, ltm, lab.settings, unsafe=unsafe)


def follow(lab: Lab) -> None:
    with lab.postgres.session() as session:
        layout = recorded(session)
    assert layout
    lab.ltm = lab.ltm.in_layout(layout, "it is recorded")


def of_app(lab: Lab) -> dict[str, list[object]]:
    """The app's own collections, whole."""
    return {name: points for name, points in lab.memories().items() if name != lab.home}


def found_as_app(lab: Lab, persona: UUID, query: str) -> list[tuple[str, float]]:
    """What the app finds in the persona's collection: texts and scores, best first."""
    (vector,) = embed([query])
    hits = lab.vectors.query(home(persona), tuple(vector), where={}, limit=50)
    found = [(str(hit.point.payload["content"]), round(hit.score, 5)) for hit in hits]
    return sorted(found, key=lambda each: (-each[1], each[0]))


def recalled(lab: Lab, persona: UUID, query: str) -> list[tuple[str, float]]:
    """What recall finds: texts and scores, best first."""
    found = lab.ltm.recall(query, persona_id=persona, limit=50)  # type: ignore[arg-type]
    return sorted(((e.text, round(e.score, 5)) for e in found), key=lambda e: (-e[1], e[0]))


WRITES = ("create", "upsert", "drop")


def crashes(calls: list[str]) -> Iterator[tuple[int, bool]]:
    """Each write of a run, before it happened and after."""
    for number, name in enumerate(calls, start=1):
        if name in WRITES:
            yield number, False
            yield number, True
