"""The deployed layouts of long-term memory: the names of collections, and the form of texts.

Decides by its name whether a collection is the app's own and whose it is, and decides when a
memory's text is that of an exchange. Names inside a text are not compared, because they may have
changed since. The fragment `agrees` of migrate/attribution/evidence.sql compares texts in SQL; one
test holds the two together.
"""

from uuid import UUID

PERSONA_PREFIX = "persona-"
PERSONALITY_PREFIX = "personality-"


def persona_of_collection(collection: str) -> UUID | None:
    """The persona that a deployed collection belongs to, by its name."""
    return _uuid_after(collection, PERSONA_PREFIX)


def personality_of_collection(collection: str) -> UUID | None:
    """The personality that an older deployed collection belongs to, by its name."""
    return _uuid_after(collection, PERSONALITY_PREFIX)


def is_deployed(collection: str) -> bool:
    """Whether the collection is one that the app made, from before the shared layout."""
    return any(each(collection) for each in (persona_of_collection, personality_of_collection))


def _uuid_after(name: str, prefix: str) -> UUID | None:
    try:
        return UUID(name.removeprefix(prefix)) if name.startswith(prefix) else None
    except ValueError:
        return None


def says_as_deployed(content: str, user_text: str, assistant_text: str) -> bool:
    """Whether `content` is `User (<name>): <message>` and `<personality>: <reply>` of an exchange.

    Read from the end, because message and reply may hold anything; names hold no newline.
    """
    reply = f": {assistant_text}"
    if not content.endswith(reply) or not content.startswith("User ("):
        return False
    said, newline, personality = content.removesuffix(reply).rpartition("\n")
    message = f"): {user_text}"
    name = said.removeprefix("User (").removesuffix(message)
    return bool(newline) and bool(personality) and said.endswith(message) and "\n" not in name
