"""Makes the dialogues of a legacy world from a seed, or reads them from a file.

It decides the text of each line and its role. It must not know users, channels or times: `talk`
turns a dialogue into messages.
"""

import gzip
import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from memsync.errors import InvalidInput
from memsync.model.records import Role, storable_text


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a dialogue."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The turns between one user and one personality; either of them may have no turn."""

    scenario: str
    turns: tuple[Turn, ...]


# The topics, each with its things to talk about.
_TOPICS = {
    "gardening": ("the tomatoes", "my basil", "the old pear tree", "that compost heap"),
    "cooking": ("the lentil soup", "a crème brûlée", "sourdough", "my grandmother's goulash"),
    "travel": ("the night train to Zürich", "Lisbon", "a week in Kyōto (京都)", "the ferry"),
    "work": ("the quarterly report", "my new manager", "that deploy on Friday", "the interview"),
    "pets": ("the cat", "our puppy", "the neighbour's parrot", "a very old tortoise"),
    "music": ("the cello", "choir practice", "a song by Björk", "the band's new drummer"),
    "books": ("the last chapter", "a Russian novel", "that detective story", "poetry"),
    "weather": ("the storm", "this heat", "the first snow", "the fog over the harbour"),
    "health": ("my knee", "the dentist", "sleeping badly", "the half marathon"),
    "family": ("my sister", "the wedding", "little Zoë", "grandpa's birthday"),
}
_ASKED = (
    "Did I tell you about {thing}?",
    "I can't stop thinking about {thing}.",
    "What would you do about {thing}?",
    "ok so, {thing}. Long story",
    'Someone said "{thing}" to me today and I laughed for {count} minutes.',
    "Remember {thing}? It is day {count} now.",
    "Honest opinion: {thing}, yes or no?",
    "I spent {count} euros on {thing} 🙈",
    "Two things:\n1. {thing}\n2. I'm tired",
    "why is it always {thing}...",
)
_ANSWERED = (
    "Tell me more about {thing}, please.",
    "You mentioned {thing} before; it sounds like it matters to you.",
    "I'd give {thing} another {count} days.",
    'Hm. "{thing}" is exactly what I would have said 😊',
    "Let's think it through.\n\n- first, {thing}\n- then everything else",
    "We are at {count} times now. Not that I'm counting.",
    "If it were up to me, {thing} would get a medal.",
    "I don't know much about {thing}, but I'm listening.",
    "It's fine to let {thing} wait.",
    "Ha! {thing} again? Go on \u2014 I have time\u2026",
)
_TAILS = (" 😅", " 👩🏽‍🌾", " Anyway.", "\nWhat do you think?", " It's 50% \\ luck.")
_TAIL_SHARE = 0.4
_NOTES = ("[the conversation was moved here]", "[the character's settings were changed]")


def made_dialogues(rng: random.Random, count: int) -> tuple[Dialogue, ...]:
    """`count` dialogues of small talk, equal for equal states of `rng`."""
    return tuple(_made(rng) for _ in range(count))


def _made(rng: random.Random) -> Dialogue:
    scenario = rng.choice(tuple(_TOPICS))
    shape = rng.random()
    length = rng.randint(1, 3) if shape < 0.12 else rng.randint(2, 9)
    roles: list[Role] = []
    for position in range(length):
        if shape < 0.08:
            roles.append("user")
        elif shape < 0.12:
            roles.append("assistant")
        elif roles and rng.random() < 0.12:
            roles.append(roles[-1])
        else:
            roles.append(("user", "assistant")[(position + (shape > 0.9)) % 2])
    thing = rng.choice(_TOPICS[scenario])
    turns = [Turn(role, made_line(rng, role, thing)) for role in roles]
    if rng.random() < 0.03:
        turns.insert(rng.randrange(len(turns)), Turn("system", rng.choice(_NOTES)))
    return Dialogue(scenario, tuple(turns))


def made_line(rng: random.Random, role: Role, thing: str | None = None) -> str:
    """One line of small talk about `thing`, as `role` would say it."""
    line = rng.choice(_ASKED if role == "user" else _ANSWERED)
    tail = rng.choice(_TAILS) if rng.random() < _TAIL_SHARE else ""
    about = thing or rng.choice(rng.choice(tuple(_TOPICS.values())))
    return line.format(thing=about, count=rng.randint(4, 90)) + tail


def read_dialogues(path: Path) -> tuple[Dialogue, ...]:
    """The dialogues of a file, gzipped or not, with one JSON object a line.

    Shapes: {"scenario": str, "turns": [{"role": "user" | "assistant", "text": str}, ...]}; other
    keys are ignored.
    Raises: InvalidInput that names the file and the line at fault.
    """
    dialogues = tuple(_dialogue(line, f"{path}, line {n}") for n, line in _lines(path))
    if not dialogues:
        raise InvalidInput(f"{path} holds no dialogues; give a file with one a line")
    return dialogues


def _opened(path: Path) -> IO[str]:
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", encoding="utf-8") if gzipped else path.open(encoding="utf-8")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with _opened(path) as lines:
            for number, line in enumerate(lines, start=1):
                yield number, line
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}, after line {number}: not UTF-8: {error.reason}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(
            f"{path}, after line {number}: cannot be read: {error}. Give a file of JSON lines, "
            "gzipped or not"
        ) from error


def _dialogue(line: str, where: str) -> Dialogue:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{where}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{where}: must be an object, not {type(found).__name__}")
    turns = found.get("turns")
    if not isinstance(turns, list) or not turns:
        raise InvalidInput(f"{where}: turns must be a list with at least one turn")
    return Dialogue(
        scenario=_text(found, "scenario", where),
        turns=tuple(_turn(turn, f"{where}, turn {n}") for n, turn in enumerate(turns, start=1)),
    )


def _turn(found: object, where: str) -> Turn:
    if not isinstance(found, dict):
        raise InvalidInput(f"{where}: must be an object, not {type(found).__name__}")
    role = found.get("role")
    if role not in ("user", "assistant"):
        raise InvalidInput(f"{where}: role must be user or assistant, not {role!r:.80}")
    return Turn(cast("Role", role), _text(found, "text", where))


def _text(found: dict[str, object], key: str, where: str) -> str:
    try:
        return storable_text(found.get(key), key)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error.message}") from error
