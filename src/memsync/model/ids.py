"""Types of ids, and the validation of those that callers give: users, personas, channels.

Decides which ids are well-formed, not whether they exist in a store. A caller's object becomes a
plain UUID or plain text here, so that a class of the caller's own, with its own idea of equality or
of its spelling, goes no further.
"""

import re
from typing import NewType
from uuid import UUID, uuid5

from memsync.errors import InvalidInput

UserId = NewType("UserId", UUID)
PersonaId = NewType("PersonaId", UUID)
PersonalityId = NewType("PersonalityId", UUID)
MessageId = NewType("MessageId", UUID)

PointId = UUID | int
"""A point's id in Qdrant: memsync's are uuids, those of others may be unsigned integers."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_KEYED = UUID("6b1d8a52-5d0c-4e0f-9a39-3f6d2c7e4b18")
"""The namespace of the ids that are made from a caller's key. It must never change."""
_COPIED = UUID("0b9c6f0e-43b1-4b0a-8d52-9d7f2d9f6c31")
"""The namespace of the ids of copies whose own ids were taken. It must never change."""
CHANNEL_CHARS_MAX = 20
KEY_CHARS_MAX = 255
# Postgres cannot store NUL, and half a surrogate pair has no UTF-8 encoding.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Whether Postgres can hold the text."""
    return not _UNSTORABLE.search(text)


def plain_text(value: str) -> str:
    """The characters of `value` as a plain str, whatever its class says that they are."""
    return str.__str__(value)


def _uuid(value: object, what: str) -> UUID:
    if isinstance(value, UUID):
        return UUID(int=value.int)
    # uuid.UUID also takes braces, urn: and missing dashes. Only the canonical spelling passes,
    # because a comparison of texts would take two spellings for two ids.
    if isinstance(value, str) and _UUID.fullmatch(spelled := plain_text(value)):
        return UUID(spelled)
    raise InvalidInput(
        f"{what} must be a uuid like 7b1e4c1e-9f0a-4f5e-8a77-0c3f6d1b2a90, not {value!r:.80}",
        field=what,
    )


def user_id(value: object) -> UserId:
    """Return `value` as a user's id.

    Raises: InvalidInput when it is not a uuid in canonical spelling.
    """
    return UserId(_uuid(value, "user_id"))


def persona_id(value: object) -> PersonaId:
    """Return `value` as a persona's id.

    Raises: InvalidInput when it is not a uuid in canonical spelling.
    """
    return PersonaId(_uuid(value, "persona_id"))


def personality_id(value: object) -> PersonalityId:
    """Return `value` as a personality's id.

    Raises: InvalidInput when it is not a uuid in canonical spelling.
    """
    return PersonalityId(_uuid(value, "personality_id"))


def channel_id(value: object) -> str:
    """Return `value` as a channel's id: 1 to 20 characters, the limit of its column.

    Raises: InvalidInput when it is not text, empty, too long, or carries a NUL.
    """
    text = plain_text(value) if isinstance(value, str) else ""
    if not 0 < len(text) <= CHANNEL_CHARS_MAX or not is_storable(text):
        raise InvalidInput(
            f"channel_id must be 1 to {CHANNEL_CHARS_MAX} characters, not {value!r:.80}",
            field="channel_id",
        )
    return text


def exchange_key(value: object) -> str:
    """Return `value` as a caller's key of an exchange: 1 to 255 characters. A uuid is its text,
    in any spelling of its letters.

    Raises: InvalidInput when it is neither, empty, too long, or cannot be stored.
    """
    text = str(UUID(int=value.int)) if isinstance(value, UUID) else ""
    if isinstance(value, str):
        text = plain_text(value)
        text = text.lower() if _UUID.fullmatch(text) else text
    if not 0 < len(text) <= KEY_CHARS_MAX or not is_storable(text):
        raise InvalidInput(
            f"key must be a uuid or 1 to {KEY_CHARS_MAX} characters, not {value!r:.80}", field="key"
        )
    return text


def keyed_message_id(*fields: str) -> MessageId:
    """The id of the message that these fields name: its thread's, the caller's key, its role.

    Each field stands after its length, so no two lists of fields give one id.
    """
    return MessageId(uuid5(_KEYED, "".join(f"{len(each)}:{each}" for each in fields)))


def copied_point_id(collection: str, point_id: str) -> UUID:
    """The id of a copy of that point, where another memory has the point's own id."""
    return uuid5(_COPIED, f"{collection}/{point_id}")


def point_id_of(text: str) -> PointId:
    """The point's id whose text this is: digits of an integer of 64 bits, else a uuid.

    Raises: ValueError for any other text.
    """
    if not text.isdecimal():
        return UUID(text)
    if (number := int(text)) >= 2**64:
        raise ValueError(f"{text:.40} does not fit into 64 bits")
    return number


def point_order(point_id: PointId) -> tuple[bool, bytes]:
    """The sort key for the order in which Qdrant scrolls: integers first, then uuids bytewise."""
    if isinstance(point_id, UUID):
        return True, point_id.bytes
    return False, point_id.to_bytes(8, "big")
