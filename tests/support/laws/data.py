"""Laws of data: a memory does not agree with its rows."""

from collections.abc import Callable
from functools import partial
from typing import Any

from memsync.model.digests import exchange_digest
from memsync.model.records import Exchange
from support.lab import BASIL, A, Lab
from support.laws.base import OLD_MS, Planted, law, one


@law("MSD001", "home")
def stale(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory whose text is not that of its rows."""
    lab.respell(said[0].anchor_id, user_text="x")
    return Planted(one(said[0].anchor_id, field="user_text", row=said[0].user_text, point="x"))


@law("MSD001", "home")
def half_a_text(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that has lost the assistant's text."""
    lab.respell(said[0].anchor_id, assistant_text=None)
    return Planted(
        one(said[0].anchor_id, field="assistant_text", row=said[0].assistant_text, point=None)
    )


@law("MSD001", "home")
def stale_of_an_earlier_build(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that an earlier build wrote, with one text, before its row was edited."""
    text = "user: x\nassistant: y"
    lab.respell(said[0].anchor_id, user_text=None, assistant_text=None, content=text)
    return Planted(one(said[0].anchor_id, field="content", row=said[0].text, point=text))


@law("MSD002", "home")
def of_an_earlier_build(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that an earlier build wrote, with both texts joined in one."""
    lab.respell(said[0].anchor_id, user_text=None, assistant_text=None, content=said[0].text)
    return Planted(one(said[0].anchor_id, field="user_text", row=said[0].user_text, point=None))


@law("MSD002", "home")
def joined_text_beside_both(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that has one text beside its two."""
    lab.respell(said[0].anchor_id, content="user: x\nassistant: y")
    return Planted(one(said[0].anchor_id, field="content", row=None, point="user: x\nassistant: y"))


@law("MSD001", "home")
def stale_row(lab: Lab, said: list[Exchange]) -> Planted:
    """A row that was edited after its memory was made."""
    lab.sql(
        "UPDATE conversation_history SET content = 'edited' WHERE id = %(id)s", id=said[0].anchor_id
    )
    return Planted(
        one(
            said[0].anchor_id,
            field="assistant_text",
            row="edited",
            point=said[0].assistant_text,
        )
    )


@law("MSD001", "deployed")
def stale_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A deployed memory whose text is a draft."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    point = lab.deploy(said[0], content="User (Al): x\nAda: draft")
    return Planted(
        one(point.id, row=said[0].text, point="User (Al): x\nAda: draft"),
        {"foreign-point-id": 1, "legacy-layout": 1},
    )


def _drift(field: str, wrong: object, lab: Lab, said: list[Exchange]) -> Planted:
    """A field that differs from the row's."""
    row, key = said[0], "created_at" if field == "created_at" else field
    lab.respell(row.anchor_id, **{field: wrong})
    right = {
        "personality_id": str(row.personality_id),
        "channel_id": row.channel_id,
        "created_at": row.created_at_ms,
        "digest": exchange_digest(row),
    }[field]
    return Planted(one(row.anchor_id, field=key, row=right, point=wrong))


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
    law("MSD002", f"home-{_field}-{_wrong and 'wrong'}")(partial(_drift, _field, _wrong))


@law("MSD003", "home")
def wrong_text_key(lab: Lab, said: list[Exchange]) -> Planted:
    """The text under another key."""
    lab.respell(said[0].anchor_id, user_text=None, assistant_text=None, text=said[0].text)
    return Planted(one(said[0].anchor_id, point="text"))


@law("MSD003", "home")
def wrong_user_text_key(lab: Lab, said: list[Exchange]) -> Planted:
    """The user's text in the other style."""
    lab.respell(said[0].anchor_id, user_text=None, userText=said[0].user_text)
    return Planted(one(said[0].anchor_id, point="userText"))


@law("MSD003", "home")
def other_style(lab: Lab, said: list[Exchange]) -> Planted:
    """A key in the other style."""
    lab.respell(said[0].anchor_id, persona_id=None, personaId=str(A))
    return Planted(one(said[0].anchor_id, point="personaId"))


@law("MSD003", "deployed")
def wrong_key_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A deployed memory with its text and time under other keys."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    content = f"User (Al): {said[0].user_text}\nAda: {said[0].assistant_text}"
    changes: dict[str, Any] = {"text": content, "content": None}
    changes |= {"timestamp": said[0].created_at_ms, "createdAt": None}
    point = lab.deploy(said[0], **changes)
    return Planted(
        one(point.id, point="text, timestamp"), {"foreign-point-id": 1, "legacy-layout": 1}
    )


@law("MSD005", "history")
def unreadable(lab: Lab, said: list[Exchange]) -> Planted:
    """A message whose time Python cannot hold, among messages that it can."""
    lab.sql(
        "UPDATE conversation_history SET created_at = 'infinity' WHERE id = %(id)s",
        id=said[0].anchor_id,
    )
    return Planted(
        one(said[0].anchor_id, created_at="infinity", messages_in_all=1),
        next_command="memsync rules MSD005",
    )


def wrong_unit(wrong: Callable[[int], object], lab: Lab, said: list[Exchange]) -> Planted:
    """A time that is not whole milliseconds."""
    row = said[0]
    lab.respell(row.anchor_id, created_at=wrong(row.created_at_ms))
    return Planted(one(row.anchor_id, row=row.created_at_ms, point=wrong(row.created_at_ms)))


law("MSD004", "home-seconds")(partial(wrong_unit, lambda ms: ms // 1000))
law("MSD004", "home-fraction")(partial(wrong_unit, lambda ms: ms + 0.5))
law("MSD004", "home-text")(partial(wrong_unit, lambda _: "2025-05-01"))
law("MSD004", "home-boolean")(partial(wrong_unit, lambda _: True))


@law("MSD004", "deployed")
def seconds_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A deployed memory whose time is in seconds."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    point = lab.deploy(said[0], createdAt=said[0].created_at_ms // 1000)
    return Planted(
        one(point.id, row=said[0].created_at_ms, point=said[0].created_at_ms // 1000),
        {"foreign-point-id": 1, "legacy-layout": 1},
    )
