"""Tests that loading a made-up app writes all its rows and points into both stores."""

import json
from collections.abc import Mapping, Sequence

import psycopg

from memsync.demo.world import FAULTS, Recipe, World, load, make_world, text_of
from memsync.model.records import Point, Vector
from memsync.stores.postgres import Postgres
from memsync.stores.vectors.protocol import IndexKind


class Vectors:
    """The part of a vector store that loading uses."""

    label = "a list"

    def __init__(self) -> None:
        self.written: dict[str, list[Point]] = {}

    def create(self, collection: str, dims: int, indexes: Mapping[str, IndexKind]) -> None:
        assert (2, {}) == (dims, indexes)
        self.written[collection] = []

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        self.written[collection] += points


def embed(texts: Sequence[str]) -> Sequence[Vector]:
    return [(1.0, float(len(text))) for text in texts]


def loaded(database: str, world: World) -> Vectors:
    vectors = Vectors()
    with Postgres.open(database) as postgres, postgres.session() as session:
        load(world, session, vectors, embed)  # type: ignore[arg-type]
    return vectors


def test_every_row_and_point_arrives(database: str) -> None:
    world = make_world(Recipe(faults=dict.fromkeys(FAULTS, 3)))
    vectors = loaded(database, world)
    with psycopg.connect(database) as connection:
        for table, columns, rows in world.tables():
            order = "personality_id" if table == "personality_owners" else "id"
            names = ", ".join(columns)
            text = f"SELECT {names} FROM {table} ORDER BY {order}"  # noqa: S608 - our own names
            expected = [plain(row, columns) for row in rows]
            actual = [plain(row, columns) for row in connection.execute(text.encode())]
            assert sorted(expected, key=lambda row: str(row[order])) == actual
    for collection, points in world.points.items():
        written = vectors.written[collection]
        assert [each.payload for each in points] == [each.payload for each in written]
        assert [(1.0, len(text_of(each))) for each in points] == [each.vector for each in written]
    assert set(world.points) == set(vectors.written)


def plain(row: Sequence[object], columns: Sequence[str]) -> dict[str, object]:
    """The row by column name, its JSON text parsed as psycopg does when it reads."""
    found = dict(zip(columns, row, strict=True))
    for column in {"custom_fields", "metadata"} & set(found):
        value = found[column]
        found[column] = json.loads(value) if isinstance(value, str) else value
    return found


def test_without_points_no_vector_is_made(database: str) -> None:
    assert {} == loaded(database, make_world(Recipe(points=False))).written
