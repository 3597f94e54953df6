"""Whether a memory's text was made from an exchange, in each form in which it may be written.

Names inside a text are not compared, because they may have changed since. The fragments `agrees`
and `says_more` of migrate/attribution/evidence.sql compare texts in SQL, and a test compares the
two.
"""

from enum import StrEnum

from memsync.model.records import StoredMemory, joined

_HEAD = "User ("
_BLANK = (" ", "\t", "\n", "\r")


class Said(StrEnum):
    """How a memory's text resembles that of the exchange that it was made from."""

    THE_SAME = "the same"
    MORE = "more"
    """Both texts stand whole in their places, with additions behind one of them or both."""


def said(memory: StoredMemory, user_text: str, assistant_text: str) -> Said | None:
    """How the memory's text resembles these texts; None where it was not made from them."""
    if says(memory, user_text, assistant_text):
        return Said.THE_SAME
    if memory.content is None or not says_more_as_deployed(
        memory.content, user_text, assistant_text
    ):
        return None
    return Said.MORE


def say_the_same(one: StoredMemory, other: StoredMemory) -> bool:
    """Whether two memories say the same, each in any of the forms. An addition is a difference."""
    for memory, told in ((one, other), (other, one)):
        if told.user_text is not None and told.assistant_text is not None:
            return says(memory, told.user_text, told.assistant_text)
    return one.content == other.content


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


def is_as_deployed(content: str) -> bool:
    """Whether the text begins as the app writes one, whatever it says."""
    return content.startswith(_HEAD)


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


def answers(memory: StoredMemory, reply: str) -> bool:
    """Whether the memory's text may end an exchange of this reply, whatever was said before it."""
    if memory.assistant_text is not None:
        return memory.assistant_text == reply
    return memory.content is not None and f": {reply}" in memory.content
