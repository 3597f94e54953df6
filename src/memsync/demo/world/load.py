"""Writes a legacy world into an empty database and an empty vector store.

It decides the order: tables, rows, then indexes and foreign keys, because users and personas refer
to each other. It must not know a driver: callers pass both stores as protocols.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import resources
from typing import Protocol

from memsync.demo.world.memories import text_of
from memsync.demo.world.world import World
from memsync.model.records import Vector
from memsync.stores.vectors.protocol import VectorStore

Embed = Callable[[Sequence[str]], Sequence[Vector]]

_BATCH_POINTS = 512
_AFTER_TABLES = "-- CreateIndex"


class RowWriter(Protocol):
    """The methods that loading needs from a Postgres session."""

    def run_script(self, script: str, /) -> None:
        """Run a script of several statements."""
        ...

    def copy_rows(
        self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]], /
    ) -> None:
        """Write rows into a table."""
        ...


def legacy_schema() -> str:
    """The SQL that makes the legacy tables in an empty database."""
    return resources.files("memsync.demo.world").joinpath("schema.sql").read_text(encoding="utf-8")


def load(world: World, postgres: RowWriter, vectors: VectorStore, embed: Embed) -> None:
    """Write the world: schema and rows to `postgres`, points to `vectors`.

    Effects: nothing is cleared first; both stores must be empty.
    """
    load_rows(world, postgres)
    load_points(world, vectors, embed)


def load_rows(world: World, postgres: RowWriter) -> None:
    """Write the schema and every row."""
    tables, mark, constraints = legacy_schema().partition(_AFTER_TABLES)
    postgres.run_script(tables)
    for table, columns, rows in world.tables():
        postgres.copy_rows(table, columns, rows)
    postgres.run_script(mark + constraints)
    # Without statistics the planner would not know the real sizes of tables that were just loaded.
    # https://www.postgresql.org/docs/current/sql-analyze.html
    postgres.run_script("ANALYZE")


def load_points(world: World, vectors: VectorStore, embed: Embed) -> None:
    """Make every collection and write its points, embedding their text in batches."""
    if not world.points:
        return
    dims = len(embed(["how long is a vector?"])[0])
    for collection, points in world.points.items():
        vectors.create(collection, dims, {})
        for start in range(0, len(points), _BATCH_POINTS):
            batch = points[start : start + _BATCH_POINTS]
            embedded = embed([text_of(point) for point in batch])
            vectors.upsert(
                collection,
                [replace(each, vector=v) for each, v in zip(batch, embedded, strict=True)],
            )
