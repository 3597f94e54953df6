"""What a vector is worth by itself: whether cosine can be computed with it, and with what result.

The stores keep numbers of 32 bits, so a length is judged as such a number.
"""

import math
from array import array
from collections.abc import Sequence
from operator import mul

from memsync.model.digests import json_digest

SHORTEST_SQUARED = 2.0**-23
"""The least squared length of a usable vector.

A store that compares by cosine brings each vector to the length 1 when it is written, but Qdrant
leaves one whose squared length is below this number as it is. Its score is then almost 0 for every
question, as that of the vector whose numbers are all 0 is.
"""


def squared_length(vector: Sequence[float]) -> float:
    """The squared length, as a number of 32 bits: infinite or NaN where a number is, or it is too
    large.
    """
    return float(array("f", [_product(vector, vector)])[0])


def not_finite(vector: Sequence[float]) -> int:
    """How many numbers are NaN or infinite as numbers of 32 bits."""
    return sum(not math.isfinite(each) for each in array("f", vector))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two usable vectors of one size."""
    lengths = math.sqrt(_product(one, one) * _product(other, other))
    return _product(one, other) / lengths


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return float(sum(map(mul, one, other)))


def vector_state(vector: Sequence[float] | None) -> str | None:
    """A digest of a vector's numbers in 32 bits, to tell later whether it changed; None for None.

    An empty vector is that of a point that has none.
    """
    return None if vector is None else json_digest(list(array("f", vector)))
