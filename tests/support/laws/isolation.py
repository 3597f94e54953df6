"""Laws of isolation: memories of the wrong persona, in the wrong place, or of none."""

from memsync.model.records import Exchange
from support.lab import ADA, NOBODY, A, B, C, Lab
from support.laws.base import OLD_MS, Planted, law, one


@law("MSI001", "home")
def mismatch(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory under the right id that names another persona."""
    lab.respell(said[0].anchor_id, persona_id=str(B))
    return Planted(one(said[0].anchor_id, row=str(A), point=str(B)))


@law("MSI001", "deployed")
def mismatch_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory in the collection of another user's persona."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    point = lab.deploy(said[0], collection=f"persona-{C}", personaId=str(C))
    return Planted(one(point.id, row=str(A), point=str(C)), {"legacy-layout": 1})


@law("MSI001", "deployed")
def mismatch_beside_a_right_one(lab: Lab, said: list[Exchange]) -> Planted:
    """A copy in the collection of another user's persona, beside the right memory at home."""
    point = lab.deploy(said[0], collection=f"persona-{C}", personaId=str(C))
    return Planted(one(point.id, row=str(A), point=str(C)), {"legacy-layout": 1})


@law("MSI002", "home")
def unknown(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory of a persona that does not exist."""
    point = lab.put(
        lab.new_id(),
        {**lab.point(said[0].anchor_id).payload, "persona_id": str(NOBODY), "created_at": OLD_MS},
    )
    return Planted(
        one(point.id, row=None, point=str(NOBODY)), next_command="memsync reconcile plan --unsafe"
    )


@law("MSI002", "deployed")
def unknown_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A collection of a persona that does not exist."""
    point = lab.deploy(
        said[0],
        collection=f"persona-{NOBODY}",
        personaId=str(NOBODY),
        content="User (N): x\nAda: y",
    )
    return Planted(
        one(point.id, row=None, point=str(NOBODY)),
        {"legacy-layout": 1},
        next_command="memsync reconcile plan --unsafe",
    )


@law("MSI003", "home")
def no_persona(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that names no persona."""
    lab.respell(said[0].anchor_id, persona_id=None)
    return Planted(one(said[0].anchor_id, row=str(A), point=None, collection=lab.home))


@law("MSI003", "deployed")
def no_persona_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A deployed memory whose persona is named by its collection only."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    point = lab.deploy(said[0], personaId=None)
    return Planted(
        one(point.id, row=str(A), point=None, collection=f"persona-{A}"),
        {"foreign-point-id": 1, "legacy-layout": 1},
    )


@law("MSI003", "deployed")
def older_layout(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory in a collection of the older layout, one for each personality."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    name = f"personality-{ADA}"
    point = lab.deploy(said[0], collection=name, personaId=None, userId=str(NOBODY))
    return Planted(
        one(point.id, row=str(A), point=None, collection=name),
        {"foreign-point-id": 1, "legacy-layout": 1},
    )


@law("MSI003", "hopeless")
def no_persona_no_row(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory at home that neither a persona nor a row explains is reported, never touched."""
    payload = {**lab.point(said[0].anchor_id).payload, "created_at": OLD_MS}
    del payload["persona_id"]
    point = lab.put(lab.new_id(), payload)
    return Planted(
        one(point.id, row=None, point=None, collection=lab.home), left={"missing-persona": 1}
    )


@law("MSI004", "deployed")
def misplaced(lab: Lab, said: list[Exchange]) -> Planted:
    """An archived memory in a deployed collection."""
    point = lab.deploy(said[0], createdAt=OLD_MS)
    return Planted(
        one(point.id, collection=f"persona-{A}", collection_persona=str(A), point=str(A)),
        {"legacy-layout": 1},
    )


@law("MSI006", "history")
def without_persona(lab: Lab, said: list[Exchange]) -> Planted:
    """A message without a persona."""
    lab.sql("ALTER TABLE conversation_history ALTER persona_id DROP NOT NULL")
    [(key,)] = lab.sql(
        "INSERT INTO conversation_history (id, channel_id, personality_id, role, content)"
        " VALUES (gen_random_uuid(), '1', %(p)s, 'system', 'x') RETURNING id",
        p=said[0].personality_id,
    )
    return Planted(
        one(key, persona_id=None, messages_in_all=1),
        {"migration-behind": 1},
        next_command="memsync migrate run --to backfill",
    )
