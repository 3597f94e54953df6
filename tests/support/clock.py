"""A clock that tests move: sleeping takes no time, and is written down."""

import pytest


class Clock:
    """Stands in for the module `time`. `pauses` are the seconds that were slept."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        """The time."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.pauses.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the relay goes by."""
    made = Clock()
    for module in ("relay", "patience"):
        monkeypatch.setattr(f"memsync.memory.{module}.time", made)
    return made
