"""What a write of memories takes, what it returns, and how a batch with a bad point is sent."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from memsync.errors import (
    InvalidInput,
    MemsyncError,
    SchemaMismatch,
    SettingsError,
    StoreUnreachable,
)
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Place, Point, Vector
from memsync.stores.ltm.embedders import Failure


@dataclass(frozen=True, slots=True)
class Made:
    """The memory that an exchange must have: its place, its payload, and the text to be embedded.

    The point has the id of the exchange's anchor, unless it replaces another one.
    """

    exchange: Exchange
    place: Place
    payload: Mapping[str, object]
    text: str

    @property
    def anchor_id(self) -> UUID:
        """The id of the exchange's anchor."""
        return self.exchange.anchor_id


@dataclass(frozen=True, slots=True)
class Written:
    """The result of a write: the points that were written, and the error of each other memory.

    `failed`: InvalidInput means that the embedder or the store refuses this memory,
    EmbedderUnreachable that the embedder is down, so that it was not tried. `held` are memories
    that wait for something to be mended, by anchor id; none of their texts is at fault. `stand` are
    memories that were found in the store as they were sent.
    """

    points: Sequence[Point]
    failed: Mapping[PointId, Failure]
    held: Mapping[UUID, MemsyncError] = field(default_factory=dict)
    stand: Sequence[Made] = ()


@dataclass(frozen=True, slots=True)
class Embedded:
    """Memories with their points, ready to be written, and the errors of the others by anchor."""

    points: Sequence[tuple[Made, Point]]
    failed: Mapping[PointId, Failure]

    @classmethod
    def of(cls, made: Sequence[Made], outcomes: Iterable[Vector | Failure]) -> Self:
        """The memories by what came of embedding their texts."""
        pairs = list(zip(made, outcomes, strict=True))
        return cls(
            [
                (each, Point(each.place.point_id, each.payload, vector))
                for each, vector in pairs
                if not isinstance(vector, Failure)
            ],
            {each.anchor_id: error for each, error in pairs if isinstance(error, Failure)},
        )

    def by_collection(self) -> dict[str, list[tuple[Made, Point]]]:
        """The points by the collection that each belongs in."""
        found: dict[str, list[tuple[Made, Point]]] = {}
        for each in self.points:
            found.setdefault(each[0].place.collection, []).append(each)
        return found


def _raised(_: Sequence[Point], error: StoreUnreachable) -> None:
    raise error


def sent_in_parts(
    points: Sequence[Point],
    send: Callable[[Sequence[Point]], None],
    failed: Callable[[Sequence[Point], StoreUnreachable], None] = _raised,
) -> dict[PointId, Failure]:
    """Send the points; return the refusals. A batch that the store refuses is halved until the bad
    point is found. One at which it fails is so, too, if `failed` raises no error; a single point
    that fails is no refusal.
    """
    if not points:
        return {}
    try:
        send(points)
    except (SchemaMismatch, SettingsError):
        raise
    except InvalidInput as refusal:
        if len(points) == 1:
            return {points[0].id: refusal}
    except StoreUnreachable as error:
        failed(points, error)
        if len(points) == 1:
            return {}
    else:
        return {}
    middle = len(points) // 2
    halves = (points[:middle], points[middle:])
    return {i: why for half in halves for i, why in sent_in_parts(half, send, failed).items()}
