"""Values: which vectors an audit looks at, what it saw of one, and of how many.

An audit compares payloads; it reads vectors only where it is asked to, because they are most of
what a store holds.
"""

from dataclasses import dataclass

from memsync.model.vectors import SHORTEST_SQUARED


@dataclass(frozen=True, slots=True)
class Verify:
    """Which vectors to look at: those of so many memories, chosen by `seed`; None: of all.

    The same seed chooses the same memories, as long as these are the same.
    """

    count: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SeenVector:
    """What was seen of a memory's vector.

    `state` is the digest of its numbers. `size` counts them, 0 where the point has no vector;
    `expected` is the collection's. `not_finite` counts those that are NaN or infinite.
    `squared_length` is as of 32 bits. `cosine` is that of the angle to the vector that the named
    embedder makes of the same text; None where they were not compared. `can_be_made`: a repair has
    an embedder that makes vectors of this size.
    """

    state: str
    size: int
    expected: int
    not_finite: int
    squared_length: float
    can_be_made: bool
    cosine: float | None = None

    @property
    def is_usable(self) -> bool:
        """Whether cosine can be computed with it."""
        fits = self.size == self.expected and not self.not_finite
        return fits and self.squared_length >= SHORTEST_SQUARED


@dataclass(frozen=True, slots=True)
class Verified:
    """How many vectors an audit looked at.

    Of `memories` at home `looked_at` had their vectors read, and the texts of `compared` were
    embedded anew. `seed` chose them; None: all of them.
    """

    memories: int
    looked_at: int
    compared: int
    seed: int | None = None

    @property
    def is_sample(self) -> bool:
        """Whether there are memories whose vectors were not looked at."""
        return self.looked_at < self.memories
