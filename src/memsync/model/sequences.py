"""Parts of sequences: batches, as `itertools.batched` makes them from Python 3.12 on, and rows."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """The items in order, `size` at a time; the last batch may be shorter."""
    rest = iter(items)
    while batch := tuple(islice(rest, size)):
        yield batch


def rows_of(data: bytes, size: int) -> Iterator[bytes]:
    """The rows of so many bytes each that lie one behind the other."""
    return (data[at : at + size] for at in range(0, len(data), size))
