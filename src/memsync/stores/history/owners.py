"""Asks whose personas are whose. An owner is the user of a persona.

An audit goes from owner to owner: a memory that one persona of a user has by mistake is mostly one
of another persona of the same user.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from memsync.stores.history.catalog import Catalog
from memsync.stores.postgres import Session

Owners = dict[UUID, list[UUID]]
"""The personas of each owner."""


def owners_page(session: Session, after: UUID, limit: int) -> Owners:
    """The next `limit` owners after this id, in the order of their ids."""
    return _grouped(session.rows("owners_page", after=after, limit=limit))


def personas_of_owners(session: Session, owners: Sequence[UUID]) -> Owners:
    """The personas of these owners."""
    return _grouped(session.rows("personas_of_owners", ids=list(owners)))


def _grouped(rows: Sequence[object]) -> Owners:
    found: Owners = {}
    for row in rows:
        found.setdefault(row.owner_id, []).append(row.persona_id)  # type: ignore[attr-defined]
    return found


def without_memory(session: Session) -> set[UUID]:
    """The personalities whose memory is switched off: their exchanges get none."""
    return {row.id for row in session.rows("without_memory")}


class People:
    """Tells which persona an id means: a persona's id, or a user's, for their default persona.

    Answers are kept, because the points of one collection name few ids.
    """

    def __init__(self, session: Session, catalog: Catalog) -> None:
        self._session = session
        self._defaults = {"defaults": f"defaults_{catalog.settings.defaults_in}"}
        self._owners: dict[UUID, UUID] = {}
        self._users: dict[UUID, UUID | None] = {}
        self._asked: set[UUID] = set()

    def learn(self, ids: Collection[UUID]) -> None:
        """Ask for all of these ids at once; those known already are not asked again."""
        new = [each for each in set(ids) if each not in self._asked]
        if not new:
            return
        self._asked.update(new)
        users = {
            row.user_id: row.persona_id
            for row in self._session.rows_with(self._defaults, "default_personas_of", ids=new)
        }
        self._users |= users
        meant = [*new, *(each for each in users.values() if each)]
        rows = self._session.rows("owners_of", ids=meant)
        self._owners |= {row.persona_id: row.owner_id for row in rows}

    def persona_meant(self, named: UUID) -> UUID | None:
        """The persona that this id means; None where it means none."""
        self.learn([named])
        return named if named in self._owners else self._users.get(named)

    def is_known(self, named: UUID) -> bool:
        """Whether a persona or a user has this id."""
        self.learn([named])
        return named in self._owners or named in self._users

    def is_persona(self, named: UUID) -> bool:
        """Whether a persona has this id."""
        self.learn([named])
        return named in self._owners

    def owner_of(self, persona: UUID) -> UUID | None:
        """The persona's owner; None where there is no such persona."""
        self.learn([persona])
        return self._owners.get(persona)
