"""Laws of data: a memory does not agree with its rows."""

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from memsync.model.digests import exchange_digest
from memsync.model.records import Exchange
from memsync.stores.ltm.layouts import Layout
from support.lab import ADA, BASIL, A, B, C, Lab, as_told
from support.laws.base import OLD_MS, OWNER, Planted, key, law, noted, one, spelled

DRAFT = "User (Al): x\nAda: draft"
LONG_AGO_TEXT = "User (Al): long ago\nAda: it was"
_FORGED = f"{LONG_AGO_TEXT} not"


@law("MSD001", "home")
def stale(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory whose text is not that of its rows."""
    lab.respell(said[0], user_text="x")
    return Planted(one(said[0].anchor_id, field="user_text", row=said[0].user_text, point="x"))


@law("MSD001", "home")
def half_a_text(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that has lost the assistant's text."""
    lab.respell(said[0], assistant_text=None)
    return Planted(
        one(said[0].anchor_id, field="assistant_text", row=said[0].assistant_text, point=None)
    )


@law("MSD001", "home")
def stale_of_an_earlier_build(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that an earlier build wrote, with one text, before its row was edited."""
    text = "user: x\nassistant: y"
    lab.respell(said[0], user_text=None, assistant_text=None, content=text)
    row = said[0].text
    return Planted(
        one(said[0].anchor_id, field="content", row=row, point=text, differs_at=len("user: "))
    )


@law("MSD001", "deployed")
def stale_as_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory whose text is a draft; the exchange and it alone have their time."""
    lab.respell(said[0], content=DRAFT)
    return Planted(one(key(lab, said[0]), field="content", row=said[0].text, point=DRAFT))


@law("MSD001", "deployed")
def without_a_text(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that has lost its text."""
    lab.respell(said[0], content=None)
    return Planted(one(key(lab, said[0]), row=said[0].text, point=None))


@law("MSD001", "home", "deployed")
def stale_row(lab: Lab, said: list[Exchange]) -> Planted:
    """A row that was edited after its memory was made."""
    lab.sql(
        "UPDATE conversation_history SET content = 'edited' WHERE id = %(id)s", id=said[0].anchor_id
    )
    if lab.deployed:
        row = f"user: {said[0].user_text}\nassistant: edited"
        return Planted(one(key(lab, said[0]), field="content", row=row, point=as_told(said[0])))
    return Planted(
        one(said[0].anchor_id, field="assistant_text", row="edited", point=said[0].assistant_text)
    )


@law("MSD002", "home")
def of_an_earlier_build(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that an earlier build wrote, with both texts joined in one."""
    lab.respell(said[0], user_text=None, assistant_text=None, content=said[0].text)
    return Planted(one(said[0].anchor_id, field="user_text", row=said[0].user_text, point=None))


@law("MSD002", "home")
def joined_text_beside_both(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that has one text beside its two."""
    lab.respell(said[0], content="user: x\nassistant: y")
    return Planted(one(said[0].anchor_id, field="content", row=None, point="user: x\nassistant: y"))


@law("MSD002", "home")
def deployed_with_an_old_digest(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that came from the app's collections carries the digest of another text."""
    payload = lab.ltm.codec.encode_deployed(said[0], as_told(said[0]))
    other = lab.ltm.codec.encode_deployed(said[0], DRAFT)["digest"]
    lab.put(said[0].anchor_id, {**payload, "digest": other, "embedder": "test/8"})
    return Planted(one(said[0].anchor_id, field="digest", row=payload["digest"], point=other))


def _drift(field: str, wrong: object, lab: Lab, said: list[Exchange]) -> Planted:
    """A field that differs from the row's."""
    row = said[0]
    lab.respell(row, **{field: wrong})
    right = {
        "personality_id": str(row.personality_id),
        "channel_id": row.channel_id,
        "created_at": row.created_at_ms,
        "digest": exchange_digest(row),
    }[field]
    return Planted(one(row.anchor_id, field=field, row=right, point=wrong))


for _field, _wrong in (
    ("personality_id", str(BASIL)),
    ("channel_id", "another"),
    ("created_at", OLD_MS),
    ("digest", "0" * 64),
    ("personality_id", None),
    ("channel_id", None),
    ("created_at", None),
    ("digest", None),
):
    law("MSD002", "home", name=f"{_field}-{_wrong and 'wrong'}")(partial(_drift, _field, _wrong))


def _drift_as_deployed(field: str, wrong: object, lab: Lab, said: list[Exchange]) -> Planted:
    """A field that the app reads and that differs from the row's."""
    row = said[0]
    ids = [str(row.said_id), str(row.anchor_id)]
    lab.respell(row, messageIds=ids, **{field: wrong})
    right: dict[str, object] = {
        "personaId": str(A),
        "personalityId": str(row.personality_id),
        "channelId": row.channel_id,
        "createdAt": row.created_at_ms,
    }
    point = None if isinstance(wrong, list) else wrong
    return Planted(one(key(lab, row), field=field, row=right[field], point=point))


_WRONG: tuple[tuple[str, str, object], ...] = (
    ("personaId", "of the same user", str(B)),
    ("personaId", "of another user", str(C)),
    ("personaId", "two of them", [str(A), str(B)]),
    ("personaId", "its owner's", OWNER),
    ("personaId", "a number", 7),
    ("personalityId", "wrong", str(BASIL)),
    ("personalityId", "in capitals", str(ADA).upper()),
    ("personalityId", "absent", None),
    ("channelId", "wrong", "another"),
    ("createdAt", "wrong", OLD_MS),
    ("createdAt", "absent", None),
)
for _key, _name, _value in _WRONG:
    law("MSD002", "deployed", name=f"{_key}-{_name}")(partial(_drift_as_deployed, _key, _value))


@law("MSD003", "home")
def wrong_text_key(lab: Lab, said: list[Exchange]) -> Planted:
    """The text under another key."""
    lab.respell(said[0], user_text=None, assistant_text=None, text=said[0].text)
    return Planted(one(said[0].anchor_id, point="text"))


@law("MSD003", "home")
def wrong_user_text_key(lab: Lab, said: list[Exchange]) -> Planted:
    """The user's text in the other style."""
    lab.respell(said[0], user_text=None, userText=said[0].user_text)
    return Planted(one(said[0].anchor_id, point="userText"))


@law("MSD003", "home")
def other_style(lab: Lab, said: list[Exchange]) -> Planted:
    """A key in the other style."""
    lab.respell(said[0], persona_id=None, personaId=str(A))
    return Planted(one(said[0].anchor_id, point="personaId"))


@law("MSD003", "deployed")
def wrong_keys_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory with its text and time under other keys."""
    changes: dict[str, Any] = {"text": as_told(said[0]), "content": None}
    changes |= {"timestamp": said[0].created_at_ms, "createdAt": None}
    lab.respell(said[0], **changes)
    return Planted(one(key(lab, said[0]), point="text, timestamp"))


@law("MSD003", "deployed")
def wrong_key_of_an_archived_memory(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory without rows that the app cannot read."""
    point = lab.deploy(said[0], createdAt=OLD_MS, content=None, text=LONG_AGO_TEXT)
    return Planted(one(point.id, point="text"))


@law("MSD003", "deployed")
def archived_in_capitals(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory without rows whose personality no filter finds as it is spelled."""
    text, in_capitals = LONG_AGO_TEXT, str(ADA).upper()
    point = lab.deploy(said[0], createdAt=OLD_MS, content=text, personalityId=in_capitals)
    return Planted(one(point.id, point="personalityId"))


def _without_content(names: tuple[str, str], lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that has two texts and not the one that the app reads."""
    texts = dict(zip(names, (said[0].user_text, said[0].assistant_text), strict=True))
    lab.respell(said[0], content=None, **texts)
    return Planted(one(key(lab, said[0]), point=", ".join(names)))


def _archived_without_content(names: tuple[str, str], lab: Lab, said: list[Exchange]) -> Planted:
    """The same of a memory without rows."""
    texts: dict[str, Any] = dict(zip(names, ("long ago", "it was"), strict=True))
    point = lab.deploy(said[0], createdAt=OLD_MS, content=None, **texts)
    return Planted(one(point.id, point=", ".join(names)))


for _names in (("user_text", "assistant_text"), ("userText", "assistantText")):
    law("MSD003", "deployed", name=f"{_names[0]}-and-no-content")(partial(_without_content, _names))
    law("MSD003", "deployed", name=f"archived-{_names[0]}-and-no-content")(
        partial(_archived_without_content, _names)
    )


def wrong_unit(wrong: Callable[[int], object], lab: Lab, said: list[Exchange]) -> Planted:
    """A time that is not whole milliseconds."""
    row = said[0]
    lab.respell(row, **spelled(lab, row, created_at=wrong(row.created_at_ms)))
    return Planted(one(key(lab, row), row=row.created_at_ms, point=wrong(row.created_at_ms)))


law("MSD004", "home", "deployed", name="seconds")(partial(wrong_unit, lambda ms: ms // 1000))
law("MSD004", "home", "deployed", name="fraction")(partial(wrong_unit, lambda ms: ms + 0.5))
law("MSD004", "home", "deployed", name="text")(partial(wrong_unit, lambda _: "2025-05-01"))
law("MSD004", "home", "deployed", name="boolean")(partial(wrong_unit, lambda _: True))


@law("MSD004", "deployed")
def seconds_of_an_archived_memory(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory without rows that the app takes for one of 1970."""
    point = lab.deploy(said[0], createdAt=OLD_MS // 1000, content=LONG_AGO_TEXT)
    return Planted(one(point.id, row=None, point=OLD_MS // 1000))


@law("MSD005", "history")
def unreadable(lab: Lab, said: list[Exchange]) -> Planted:
    """A message whose time Python cannot hold, among messages that it can."""
    lab.sql(
        "UPDATE conversation_history SET created_at = 'infinity' WHERE id = %(id)s",
        id=said[0].anchor_id,
    )
    return Planted(
        one(said[0].anchor_id, created_at="infinity", messages_in_all=1),
        facts={"foreign-point-id": len(said) - 1} if lab.deployed else {},
        next_command="memsync rules MSD005",
    )


@law("MSD006", "deployed")
def enriched(lab: Lab, said: list[Exchange]) -> Planted:
    """What the app adds behind the message, behind the reply, and behind both."""
    additions = ((" [a cat]", ""), ("", "\n[a]"), ("\n[a]", "\n[b]"))
    for each, added in zip(said, additions, strict=False):
        lab.respell(each, content=as_told(each, user=added[0], reply=added[1]))
    first = min(key(lab, each) for each in said[:3])
    return Planted(
        one(f"persona-{A}/{first}", points=3, collections=1),
        facts={"enriched-content": 3},
        next_command="memsync rules MSD006",
    )


@law("MSD006", "home")
def enriched_and_brought_home(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that came from the app's collections with what the app had added."""
    payload = lab.ltm.codec.encode_deployed(said[0], as_told(said[0], user="\n[a cat]"))
    lab.put(said[0].anchor_id, {**payload, "embedder": "test/8"})
    return Planted(
        one(f"{lab.home}/{said[0].anchor_id}", points=1, collections=1),
        facts={"enriched-content": 1},
        next_command="memsync rules MSD006",
    )


def _tampered(other: str, lab: Lab, said: list[Exchange], **wrong: object) -> Planted:
    """An archived memory whose digest is that of what it said before. `other` is a fault that a
    plan mends of it, without taking the proof.
    """
    home = lab.place(said[0]).collection
    point = lab.deploy(said[0], collection=home, createdAt=OLD_MS, content=LONG_AGO_TEXT)
    codec = lab.ltm.codec_of(home)
    payload = codec.archived(point, persona_id=A, embedder="test/8")
    if not lab.deployed:
        lab.put(point.id, payload, home)
        assert lab.check().ok, "a memory that fits its digest is none of the tampered"
    lab.put(point.id, payload | spelled(lab, said[0], **wrong), home)
    return Planted(
        one(point.id, point=payload[codec.key("digest")]),
        others={other: 1} if other else {},
        next_command="memsync rules MSD007",
    )


for _name, _changes in (
    ("persona", {"persona_id": str(C)}),
    ("text", {"content": _FORGED}),
    ("time", {"created_at": OLD_MS - 1}),
    ("channel", {"channel_id": "another"}),
):
    law("MSD007", "home", name=f"tampered-{_name}")(partial(_tampered, "", **_changes))
law("MSD007", "deployed", name="tampered-text")(partial(_tampered, "", content=_FORGED))
law("MSD007", "home", name="tampered-text-in-seconds")(
    partial(_tampered, "wrong-time-unit", content=_FORGED, created_at=OLD_MS // 1000)
)


@law("MSD007", "home", name="tampered-text-under-another-key")
def _tampered_under_another_key(lab: Lab, said: list[Exchange]) -> Planted:
    """A tampered memory with a key that is mended."""
    planted = _tampered("wrong-payload-key", lab, said, content=_FORGED)
    [id_] = planted.evidence
    home = lab.place(said[0]).collection
    payload = dict(lab.point(UUID(id_), home).payload)
    lab.put(UUID(id_), payload | {"channelId": payload.pop("channel_id")}, home)
    return planted


@law("MSD007", "home", "deployed")
def other_than_noted(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory of the ledger whose rows are gone, and whose text was changed since."""
    noted(lab, said)
    lab.unsay(said[0])
    if lab.deployed:
        lab.respell(said[0], content=_FORGED)
    else:
        lab.respell(said[0], **spelled(lab, said[0], assistant_text="it was not"))
    return Planted(
        one(key(lab, said[0])),
        facts={"foreign-point-id": len(said) - 1} if lab.deployed else {},
        next_command="memsync rules MSD007",
    )


@law("MSD008", "deployed")
def skewed(lab: Lab, said: list[Exchange]) -> Planted:
    """Times that are beside the rows', earlier and later, by as much as is allowed."""
    for each, by in zip(said, (-10_000, 1, 10_000), strict=False):
        lab.respell(each, createdAt=each.created_at_ms + by)
    first = min(key(lab, each) for each in said[:3])
    return Planted(
        one(f"persona-{A}/{first}", points=3, collections=1),
        facts={"time-skew": 3},
        next_command="memsync rules MSD008",
    )


NOT_EVERYWHERE = {("MSD008", Layout.SHARED)}
"""In the shared layout a time beside the row's is a payload's that drifted."""
