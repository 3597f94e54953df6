"""The deployed layouts: how the app itself named its collections and wrote the texts of memories.

This module tells by a collection's name whether the app made it, and for which persona or
personality. It also tells whether a memory's text was made from a given exchange; names inside a
text are not compared, because they may have changed since. The fragments `agrees` and `says_more`
of migrate/attribution/evidence.sql compare texts in SQL, and a test compares the two.
"""

from uuid import UUID

from memsync.model.records import StoredMemory, joined

PERSONA_PREFIX = "persona-"
PERSONALITY_PREFIX = "personality-"

_HEAD = "User ("
_BLANK = (" ", "\t", "\n", "\r")


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


def says(
    memory: StoredMemory, user_text: str, assistant_text: str, *, as_deployed: bool = True
) -> bool:
    """Whether the memory's text was made from an exchange of these texts.

    Two texts must be equal. One text may have the form in which an earlier build kept both; with
    `as_deployed` also the app's.
    """
    if memory.user_text is not None and memory.assistant_text is not None:
        return (memory.user_text, memory.assistant_text) == (user_text, assistant_text)
    if memory.content is None:
        return False
    if memory.content == joined(user_text, assistant_text):
        return True
    return as_deployed and says_as_deployed(memory.content, user_text, assistant_text)


def says_as_deployed(content: str, user_text: str, assistant_text: str) -> bool:
    """Whether `content` is `User (<name>): <message>` and `<personality>: <reply>` of an exchange.

    The text is read from its end, because message and reply may hold anything; names hold no
    newline.
    """
    reply = f": {assistant_text}"
    if not content.endswith(reply) or not content.startswith(_HEAD):
        return False
    said, newline, personality = content.removesuffix(reply).rpartition("\n")
    message = f"): {user_text}"
    name = said.removeprefix(_HEAD).removesuffix(message)
    return bool(newline) and bool(personality) and said.endswith(message) and "\n" not in name


def says_more_as_deployed(content: str, user_text: str, assistant_text: str) -> bool:
    """Whether `content` is that, with what the app may have added behind message or reply.

    An addition begins with white space; where both have one, that of the reply begins a line. The
    first place counts where a text may stand, so a text that repeats itself may not be recognised.
    """
    message, reply = f"): {user_text}", f": {assistant_text}"
    place = content.find(message, len(_HEAD))
    if place < 0 or not content.startswith(_HEAD) or "\n" in content[:place]:
        return False
    rest = content[place + len(message) :]
    if not rest.startswith(_BLANK):
        return False
    if rest.endswith(reply) and _ends_with_a_name(rest.removesuffix(reply)):
        return True
    name, found, behind = rest[1:].partition(reply)
    if rest[0] == "\n" and name and found and "\n" not in name and behind.startswith(_BLANK):
        return True
    before, found, _ = rest.partition(f"{reply}\n")
    return bool(found) and _ends_with_a_name(before)


def _ends_with_a_name(text: str) -> bool:
    """Whether the text ends with a line that is not empty, and not the first one."""
    _, newline, name = text.rpartition("\n")
    return bool(newline) and bool(name)
