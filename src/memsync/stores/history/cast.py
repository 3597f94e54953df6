"""Adds users, personas and personalities, and reads their names.

They are added for an app that begins without tables of its own. This module decides the values of
the columns that the app's tables require and a caller does not give. The statements are in
cast.sql.
"""

import re
from collections.abc import Collection
from uuid import UUID, uuid4

from memsync.model.ids import PersonaId, PersonalityId, UserId
from memsync.model.records import Speakers
from memsync.stores.postgres import Session

_NO_LETTERS = re.compile(r"[^a-z0-9]+")
_SLUG_CHARS_MAX = 40


def add_user(session: Session, name: str) -> UserId:
    """Add a user of this name; return its id."""
    user = uuid4()
    session.run("insert_user", id=user, discord_id=f"memsync-{user.hex[:12]}", name=name)
    return UserId(user)


def add_persona(session: Session, name: str, owner: UserId) -> PersonaId:
    """Add a persona of this user; return its id."""
    persona = uuid4()
    session.run("insert_persona", id=persona, name=name, owner_id=owner)
    return PersonaId(persona)


def make_default(session: Session, persona: PersonaId, owner: UserId) -> None:
    """Let this persona be the default of a user who has none."""
    session.run("insert_default_persona", user_id=owner, persona_id=persona)


def add_personality(session: Session, name: str) -> PersonalityId:
    """Add a personality; return its id. Its slug is unique, because a part of the id is in it."""
    personality = uuid4()
    session.run("insert_personality", id=personality, name=name, slug=_slug(name, personality))
    return PersonalityId(personality)


def _slug(name: str, personality: UUID) -> str:
    words = _NO_LETTERS.sub("-", name.lower()).strip("-")[:_SLUG_CHARS_MAX]
    return f"{words or 'personality'}-{personality.hex[:8]}"


def speakers(
    session: Session, pairs: Collection[tuple[PersonaId, PersonalityId]]
) -> dict[tuple[PersonaId, PersonalityId], Speakers]:
    """The names of these personas and personalities; a pair is absent where one does not exist."""
    asked = list(pairs)
    rows = session.rows(
        "names_of_speakers",
        personas=[persona for persona, _ in asked],
        personalities=[personality for _, personality in asked],
    )
    return {
        (PersonaId(row.persona_id), PersonalityId(row.personality_id)): Speakers(
            row.persona, row.personality
        )
        for row in rows
    }
