"""Laws of isolation: memories of the wrong persona, in the wrong place, or of none."""

from functools import partial

from memsync.model.records import Exchange
from support.lab import NOBODY, A, B, C, Lab
from support.laws.base import OLD_MS, OWNER, PLAN, UNSAFE, Planted, key, law, noted, one, spelled
from support.laws.coverage import NEVER, OLDER

LONER = "cccccccc-0000-4000-8000-000000000003"
"""A user without a default persona."""


@law("MSI001", "home")
def mismatch(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory under the right id that names another persona."""
    lab.respell(said[0], persona_id=str(B))
    return Planted(one(said[0].anchor_id, row=str(A), point=str(B)))


@law("MSI001", "home")
def mismatch_under_another_id(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory under another id that names another user's persona."""
    payload = {**lab.point(said[0].anchor_id).payload, "persona_id": str(C)}
    lab.lose(said[0])
    point = lab.put(lab.new_id(), payload)
    return Planted(one(point.id, row=str(A), point=str(C)), next_command=UNSAFE)


@law("MSI001", "home")
def mismatch_beside_the_right_one(lab: Lab, said: list[Exchange]) -> Planted:
    """A copy that another persona of the user has."""
    payload = {**lab.point(said[0].anchor_id).payload, "persona_id": str(B)}
    point = lab.put(lab.new_id(), payload)
    return Planted(one(point.id, row=str(A), point=str(B)), next_command=UNSAFE)


@law("MSI001", "deployed")
def with_the_users_other_persona(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory in the collection of another persona of the user."""
    return _with_another(B, lab, said)


@law("MSI001", "deployed")
def with_another_user(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory in the collection of another user's persona."""
    return _with_another(C, lab, said)


def _with_another(persona: object, lab: Lab, said: list[Exchange]) -> Planted:
    lab.lose(said[0])
    point = lab.deploy(said[0], collection=f"persona-{persona}", personaId=str(persona))
    return Planted(
        one(point.id, row=str(A), point=str(persona)),
        facts={"foreign-point-id": len(said) - 1},
        next_command=UNSAFE,
    )


@law("MSI001", "deployed")
def a_foreign_copy(lab: Lab, said: list[Exchange]) -> Planted:
    """A copy in the collection of another user's persona, beside the right memory."""
    point = lab.deploy(said[0], collection=f"persona-{C}", personaId=str(C))
    return Planted(one(point.id, row=str(A), point=str(C)), next_command=UNSAFE)


@law("MSI001", "deployed")
def in_dispute(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory in another's collection whose payload names the right persona is only reported."""
    lab.lose(said[0])
    point = lab.deploy(said[0], collection=f"persona-{C}")
    return Planted(
        one(point.id, row=str(A), point=str(C)),
        facts={"foreign-point-id": len(said) - 1},
        next_command="memsync rules MSI001",
    )


@law("MSI002", "home")
def unknown(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory of a persona that does not exist."""
    point = lab.put(
        lab.new_id(),
        {**lab.point(said[0].anchor_id).payload, "persona_id": str(NOBODY), "created_at": OLD_MS},
    )
    return Planted(one(point.id, row=None, point=str(NOBODY)), next_command=UNSAFE)


@law("MSI002", "home")
def of_a_user(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory of a user who has no default persona."""
    payload = lab.point(said[0].anchor_id).payload
    point = lab.put(lab.new_id(), {**payload, "persona_id": LONER, "created_at": OLD_MS})
    return Planted(one(point.id, row=None, point=LONER), next_command=UNSAFE)


@law("MSI002", "home")
def unknown_under_the_right_id(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory under its anchor's id that names a persona who does not exist."""
    lab.respell(said[0], persona_id=str(NOBODY))
    return Planted(one(said[0].anchor_id, row=str(A), point=str(NOBODY)))


@law("MSI002", "beside home", "deployed")
def a_collection_of_nobodys(lab: Lab, said: list[Exchange]) -> Planted:
    """A collection of a persona that does not exist."""
    point = lab.deploy(
        said[0], collection=f"persona-{NOBODY}", personaId=str(NOBODY), content=NEVER
    )
    return Planted(
        one(point.id, row=None, point=str(NOBODY)), facts={"legacy-layout": 1}, next_command=UNSAFE
    )


@law("MSI002", "beside home", "deployed")
def a_copy_with_nobody(lab: Lab, said: list[Exchange]) -> Planted:
    """Whatever else is true of it, a memory of a persona that does not exist is one."""
    point = lab.deploy(said[0], collection=f"persona-{NOBODY}", personaId=str(NOBODY))
    return Planted(
        one(point.id, row=str(A), point=str(NOBODY)),
        facts={"legacy-layout": 1},
        next_command=UNSAFE,
    )


@law("MSI002", "deployed")
def the_only_one_with_nobody(lab: Lab, said: list[Exchange]) -> Planted:
    """The only memory of an exchange is one of a persona that does not exist."""
    lab.lose(said[0])
    point = lab.deploy(said[0], collection=f"persona-{NOBODY}", personaId=str(NOBODY))
    return Planted(
        one(point.id, row=str(A), point=str(NOBODY)),
        facts={"legacy-layout": 1, "foreign-point-id": len(said) - 1},
    )


@law("MSI002", "deployed")
def a_payload_that_names_nobody(lab: Lab, said: list[Exchange]) -> Planted:
    """In a persona's collection, a payload names a persona that does not exist."""
    lab.respell(said[0], personaId=str(NOBODY))
    return Planted(
        one(key(lab, said[0]), row=str(A), point=str(NOBODY)),
        facts={"foreign-point-id": len(said) - 1},
    )


@law("MSI003", "home")
def no_persona(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that names no persona."""
    lab.respell(said[0], persona_id=None)
    return Planted(one(said[0].anchor_id, row=str(A), point=None, collection=lab.home))


@law("MSI003", "home")
def two_personas(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that names two personas, so that the filters of both find it."""
    lab.respell(said[0], persona_id=[str(A), str(C)])
    return Planted(one(said[0].anchor_id, row=str(A), point=None, collection=lab.home))


@law("MSI003", "home")
def no_persona_no_row(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory at home that neither a persona nor a row explains is reported, never touched."""
    payload = {**lab.point(said[0].anchor_id).payload, "created_at": OLD_MS}
    del payload["persona_id"]
    point = lab.put(lab.new_id(), payload)
    return Planted(
        one(
            point.id,
            row=None,
            point=None,
            collection=lab.home,
            created_at=OLD_MS,
            text=f"user: {said[0].user_text}\nassistant: {said[0].assistant_text}",
        ),
        next_command="memsync rules MSI003",
        left={"missing-persona": 1},
    )


@law("MSI003", "deployed")
def named_by_its_collection(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory whose persona its collection alone names, with rows and without, is a fact."""
    lab.respell(said[0], personaId=None)
    without_rows = lab.deploy(said[0], personaId=None, createdAt=OLD_MS, content=NEVER)
    first = min(key(lab, said[0]), str(without_rows.id))
    return Planted(
        one(f"persona-{A}/{first}", points=2, collections=1),
        facts={"missing-persona": 2},
        next_command="memsync rules MSI003",
    )


@law("MSI004", "beside home")
def left_behind(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory without rows that was not brought into the shared collection."""
    point = lab.deploy(said[0], createdAt=OLD_MS, content=NEVER)
    return Planted(
        one(
            point.id,
            collection=f"persona-{A}",
            collection_persona=str(A),
            point=str(A),
            belongs_in=lab.home,
            created_at=OLD_MS,
            text=NEVER,
        ),
        facts={"legacy-layout": 1},
    )


@law("MSI004", "beside home", "beside deployed")
def archived_in_an_older_collection(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory without rows lies in the older collection of its personality."""
    point = lab.deploy(said[0], collection=OLDER, createdAt=OLD_MS, content=NEVER)
    return Planted(
        one(point.id, collection=OLDER, collection_persona=None, point=str(A)),
        facts={"legacy-layout": 1},
    )


@law("MSI004", "beside home", "beside deployed")
def archived_in_dispute(lab: Lab, said: list[Exchange]) -> Planted:
    """One that names two personas is reported, and given to neither."""
    point = lab.deploy(
        said[0], collection=OLDER, createdAt=OLD_MS, content=NEVER, persona_id=str(C)
    )
    return Planted(
        one(point.id, collection=OLDER, collection_persona=None, point="several personas"),
        facts={"legacy-layout": 1},
        next_command="memsync rules MSI004",
    )


@law("MSI004", "deployed")
def archived_with_another(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory without rows whose collection and payload name two personas."""
    point = lab.deploy(said[0], createdAt=OLD_MS, content=NEVER, personaId=str(C))
    return Planted(
        one(point.id, collection=f"persona-{A}", collection_persona=str(A), point=str(C)),
        next_command="memsync rules MSI004",
    )


def _archived_with(named: object, lab: Lab, said: list[Exchange]) -> Planted:
    """A memory without rows that recall does not take for its persona's."""
    home = lab.place(said[0]).collection
    point = lab.deploy(said[0], collection=home, createdAt=OLD_MS, content=NEVER)
    payload = dict(point.payload if lab.deployed else lab.ltm.codec.archived(point, persona_id=A))
    lab.put(point.id, payload | spelled(lab, said[0], persona_id=named, digest=None), home)
    return Planted(
        one(point.id, collection=home, point=named, belongs_in=home, text=NEVER),
        next_command=PLAN if lab.deployed else "memsync rules MSI004",
    )


law("MSI004", "home", "deployed", name="archived_with_its_owner")(partial(_archived_with, OWNER))
law("MSI004", "deployed", name="archived_with_a_number")(partial(_archived_with, 7))
law("MSI004", "deployed", name="archived_with_nothing")(partial(_archived_with, ""))


@law("MSI004", "deployed")
def archived_with_nothing_and_another(lab: Lab, said: list[Exchange]) -> Planted:
    """The same, where another spelling of the key names another persona."""
    point = lab.deploy(said[0], createdAt=OLD_MS, content=NEVER, personaId="", persona_id=str(C))
    return Planted(
        one(point.id, collection=f"persona-{A}", point="several personas"),
        others={"wrong-payload-key": 1},
        next_command="memsync rules MSI004",
    )


@law("MSI004", "deployed")
def archived_with_its_owner_and_noted(lab: Lab, said: list[Exchange]) -> Planted:
    """The same of a memory that the ledger has: it was changed since, so a plan leaves it."""
    noted(lab, said)
    lab.unsay(said[0])
    lab.respell(said[0], personaId=OWNER)
    return Planted(
        one(key(lab, said[0]), point=OWNER),
        others={"archived-tampered": 1},
        facts={"foreign-point-id": len(said) - 1},
        next_command="memsync rules MSI004",
    )


@law("MSI004", "deployed")
def archived_with_two(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory without rows whose payload names two personas."""
    point = lab.deploy(said[0], createdAt=OLD_MS, content=NEVER, personaId=[str(A), str(C)])
    return Planted(
        one(
            point.id, collection=f"persona-{A}", collection_persona=str(A), point="several personas"
        ),
        next_command="memsync rules MSI004",
    )


@law("MSI005", "beside home", "beside deployed")
def nobodys(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory in an older collection names nobody and matches nothing."""
    point = lab.deploy(said[0], collection="persona-legacy-1", content=NEVER, personaId=None)
    return Planted(
        one(point.id, row=None, point=str(point.id)),
        facts={"legacy-layout": 1},
        next_command=UNSAFE,
    )


@law("MSI005", "beside home", "beside deployed")
def of_a_user_without_a_default(lab: Lab, said: list[Exchange]) -> Planted:
    """A collection named by a user who exists and has no default persona."""
    point = lab.deploy(said[0], collection=f"persona-{LONER}", content=NEVER, personaId=LONER)
    return Planted(
        one(point.id, row=None, point=str(point.id)),
        facts={"legacy-layout": 1},
        next_command=UNSAFE,
    )


@law("MSI006", "history")
def without_persona(lab: Lab, said: list[Exchange]) -> Planted:
    """A message without a persona."""
    lab.sql("ALTER TABLE conversation_history ALTER persona_id DROP NOT NULL")
    [(message,)] = lab.sql(
        "INSERT INTO conversation_history (id, channel_id, personality_id, role, content)"
        " VALUES (gen_random_uuid(), '1', %(p)s, 'system', 'x') RETURNING id",
        p=said[0].personality_id,
    )
    return Planted(
        one(message, persona_id=None, messages_in_all=1),
        {"migration-behind": 1},
        next_command="memsync migrate run --to backfill",
    )


@law("MSI007", "history")
def of_a_persona_who_is_gone(lab: Lab, said: list[Exchange]) -> Planted:
    """A restore went past the foreign key, and lacked a persona."""
    lab.sql("ALTER TABLE conversation_history DISABLE TRIGGER ALL")
    [(message,)] = lab.sql(
        "INSERT INTO conversation_history"
        " (id, channel_id, personality_id, persona_id, role, content)"
        " VALUES (gen_random_uuid(), '1', %(p)s, %(n)s, 'system', 'x') RETURNING id",
        p=said[0].personality_id,
        n=NOBODY,
    )
    lab.sql("ALTER TABLE conversation_history ENABLE TRIGGER ALL")
    return Planted(
        one(message, persona_id=str(NOBODY), messages_in_all=1),
        next_command="memsync rules MSI007",
    )
