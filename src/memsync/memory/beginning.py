"""Adds the persona and the personality that an exchange needs, for an app that begins with memsync.

It decides which names are accepted, and that a user who is made for a persona has it as default.
"""

from uuid import UUID

from memsync.errors import InvalidInput
from memsync.model import ids
from memsync.model.ids import PersonaId, PersonalityId
from memsync.model.records import storable_text
from memsync.stores.history import cast
from memsync.stores.postgres import Postgres, Session

NAME_CHARS_MAX = 255


def add_persona(postgres: Postgres, name: str, owner_id: UUID | str | None) -> PersonaId:
    """Add a persona of this user, or of a new one of the same name; return its id."""
    called = _name(name)
    owner = None if owner_id is None else ids.user_id(owner_id)

    def add(session: Session) -> PersonaId:
        with session.transaction():
            if owner is not None:
                return cast.add_persona(session, called, owner)
            user = cast.add_user(session, called)
            persona = cast.add_persona(session, called, user)
            cast.make_default(session, persona, user)
            return persona

    return postgres.call(add)


def add_personality(postgres: Postgres, name: str) -> PersonalityId:
    """Add a personality; return its id."""
    called = _name(name)

    def add(session: Session) -> PersonalityId:
        with session.transaction():
            return cast.add_personality(session, called)

    return postgres.call(add)


def _name(name: str) -> str:
    text = storable_text(name, "name")
    if not text.strip() or len(text) > NAME_CHARS_MAX:
        raise InvalidInput(
            f"name must be text of 1 to {NAME_CHARS_MAX} characters, not {name!r:.40}", field="name"
        )
    return text
