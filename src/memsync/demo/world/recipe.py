"""A recipe describes a legacy world: its size, its mix of users, its faults, its seed.

The module decides the defaults, and refuses values that make no sense together. Every random choice
in a world comes from a stream that the recipe names and seeds, so equal recipes give equal worlds,
and one part can be made again without the others. It must not know how any part is made.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from uuid import UUID

from memsync.demo.world.text import Dialogue
from memsync.errors import InvalidInput
from memsync.model.records import to_ms

DIALOGUES = 240
_YOUNGEST = timedelta(days=1)


@dataclass(frozen=True)
class Recipe:
    """How to make a world. Shares are fractions of all users; `group_share` is one of dialogues.

    `source` are dialogues to use in turn; each scenario becomes a personality. Without them small
    talk is made for `personalities` characters. `dialogues` is the number of dialogues held; the
    default is each of the source once, or 240. `faults` counts planted faults by name. Without
    `points` there is no long-term memory, and memory use does not grow with messages.
    """

    seed: int = 1
    now: datetime = datetime(2025, 10, 26, 12, tzinfo=UTC)
    days: int = 90
    users: int = 24
    personalities: int = 4
    source: Sequence[Dialogue] = field(default=(), repr=False)
    dialogues: int | None = None
    several_share: float = 0.4
    override_share: float = 0.25
    unresolved_share: float = 0.125
    group_share: float = 0.35
    pending_memories: int = 3
    points: bool = True
    faults: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name.endswith("_share") and not 0 <= value <= 1:
                raise InvalidInput(f"{each.name} must be from 0 to 1, not {value}")
        for name in ("users", "personalities", "days"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.now.tzinfo is None:
            raise InvalidInput(f"now must carry a time zone: {self.now.isoformat()} has none")
        if self.several_users + self.unresolved_users > self.users:
            raise InvalidInput("several_share and unresolved_share together exceed all users")
        if self.override_users > self.several_users:
            raise InvalidInput("override_share exceeds several_share: only they can override")
        if self.held < self.users:
            raise InvalidInput(
                f"{self.held} dialogues are too few for {self.users} users; each holds at least one"
            )
        if any(self.faults.values()) and not self.points:
            raise InvalidInput("faults are planted in points; a recipe without points has none")

    @property
    def held(self) -> int:
        """How many dialogues are held."""
        return self.dialogues if self.dialogues is not None else len(self.source) or DIALOGUES

    @property
    def several_users(self) -> int:
        """How many users have several personas."""
        return round(self.several_share * self.users)

    @property
    def override_users(self) -> int:
        """How many of these users choose another persona for some personalities."""
        return round(self.override_share * self.users)

    @property
    def unresolved_users(self) -> int:
        """How many users have no persona."""
        return round(self.unresolved_share * self.users)

    @property
    def history_ms(self) -> tuple[int, int]:
        """The first and the last moment of all messages, in milliseconds since the Unix epoch."""
        end = self.now - _YOUNGEST
        return to_ms(end - timedelta(days=self.days)), to_ms(end)

    def rng(self, *stream: object) -> random.Random:
        """A new random generator for the part of the world that `stream` names."""
        stream_seed = "/".join(map(str, (self.seed, *stream)))
        return random.Random(stream_seed)


def random_uuid(rng: random.Random) -> UUID:
    """A uuid that looks like any other of version 4, drawn from `rng`."""
    return UUID(int=rng.getrandbits(128), version=4)


def snowflake(rng: random.Random) -> str:
    """An id of 17 to 19 digits, as chat services give to accounts, channels and messages."""
    return str(rng.randrange(10**16, 10 ** rng.choice((17, 18, 19))))
