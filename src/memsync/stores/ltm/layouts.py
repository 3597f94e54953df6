"""The deployed layouts: how the app itself named its collections and wrote the texts of memories.

This module tells by a collection's name whether the app made it, and for which persona or
personality. It also tells whether a memory's text was made from a given exchange; names inside a
text are not compared, because they may have changed since. The fragment `agrees` of
migrate/attribution/evidence.sql compares texts in SQL, and a test compares the two.
"""

from uuid import UUID

PERSONA_PREFIX = "persona-"
PERSONALITY_PREFIX = "personality-"


def persona_of_collection(collection: str) -> UUID | None:
    """The persona in the name of an app's collection; None for any other name."""
    return _uuid_after(collection, PERSONA_PREFIX)


def personality_of_collection(collection: str) -> UUID | None:
    """The personality in the name of an app's older collection; None for any other name."""
    return _uuid_after(collection, PERSONALITY_PREFIX)


def is_deployed(collection: str) -> bool:
    """Whether the app made the collection, by its name."""
    return any(each(collection) for each in (persona_of_collection, personality_of_collection))


def _uuid_after(name: str, prefix: str) -> UUID | None:
    try:
        return UUID(name.removeprefix(prefix)) if name.startswith(prefix) else None
    except ValueError:
        return None


def says_as_deployed(content: str, user_text: str, assistant_text: str) -> bool:
    """Whether `content` is `User (<name>): <message>` and `<personality>: <reply>` of an exchange.

    The text is read from its end, because message and reply may hold anything; names hold no
    newline.
    """
    reply = f": {assistant_text}"
    if not content.endswith(reply) or not content.startswith("User ("):
        return False
    said, newline, personality = content.removesuffix(reply).rpartition("\n")
    message = f"): {user_text}"
    name = said.removeprefix("User (").removesuffix(message)
    return bool(newline) and bool(personality) and said.endswith(message) and "\n" not in name
