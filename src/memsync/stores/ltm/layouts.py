"""The two layouts of long-term memory, and the names of collections in each.

In the per-persona layout, the app's own, each persona has the collection `persona-<its id>`. In the
shared layout all memories lie in one collection. This module tells by its name what a collection
was made for; whether that persona or personality exists is not known here.
"""

from enum import StrEnum
from uuid import UUID

PERSONA_PREFIX = "persona-"
PERSONALITY_PREFIX = "personality-"
LEGACY_PREFIX = "persona-legacy-"


class Layout(StrEnum):
    """Where memories lie."""

    PER_PERSONA = "per-persona"
    SHARED = "shared"


class CollectionKind(StrEnum):
    """What a collection was made for, by its name."""

    SHARED = "shared"
    """The one collection of the shared layout."""
    PERSONA = "persona-*"
    """One persona's memories. The app once used a user's id in its place."""
    PERSONALITY = "personality-*"
    """The memories of all who talk to one personality: the app's older layout."""
    LEGACY = "persona-legacy-*"
    """Memories that the app set aside."""
    OTHER = "other"
    """No memories."""


def kind_of(collection: str, shared: str) -> CollectionKind:
    """The kind of a collection, where `shared` is the name of the shared layout's."""
    if collection == shared:
        return CollectionKind.SHARED
    if collection.startswith(LEGACY_PREFIX):
        return CollectionKind.LEGACY
    if persona_of_collection(collection):
        return CollectionKind.PERSONA
    if personality_of_collection(collection):
        return CollectionKind.PERSONALITY
    return CollectionKind.OTHER


def collection_of_persona(persona_id: UUID) -> str:
    """The persona's collection in the per-persona layout."""
    return f"{PERSONA_PREFIX}{persona_id}"


def collection_of_personality(personality_id: UUID) -> str:
    """The personality's collection in the app's older layout."""
    return f"{PERSONALITY_PREFIX}{personality_id}"


def persona_of_collection(collection: str) -> UUID | None:
    """The persona in the name of an app's collection; None for any other name."""
    return _uuid_after(collection, PERSONA_PREFIX)


def personality_of_collection(collection: str) -> UUID | None:
    """The personality in the name of an app's older collection; None for any other name."""
    return _uuid_after(collection, PERSONALITY_PREFIX)


def is_deployed(collection: str) -> bool:
    """Whether the app made the collection, by its name."""
    return kind_of(collection, "") is not CollectionKind.OTHER


def _uuid_after(name: str, prefix: str) -> UUID | None:
    try:
        return UUID(name.removeprefix(prefix)) if name.startswith(prefix) else None
    except ValueError:
        return None
