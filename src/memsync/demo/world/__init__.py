"""A made-up legacy app: its database and its memories, generated from a seed.

`make_world` turns a `Recipe` into a `World`, whose `Manifest` holds the expected counts; `load`
writes the world into stores. The demo, the tests and the benchmarks all use this one generator. It
knows the app's old layout only, and nothing of migrating or auditing.
"""

from memsync.demo.world.faults import FAULTS
from memsync.demo.world.load import RowWriter, legacy_schema, load, load_points, load_rows
from memsync.demo.world.memories import text_of
from memsync.demo.world.recipe import Recipe
from memsync.demo.world.text import Dialogue, Turn, made_dialogues, read_dialogues
from memsync.demo.world.world import Manifest, World, make_world

__all__ = [
    "FAULTS",
    "Dialogue",
    "Manifest",
    "Recipe",
    "RowWriter",
    "Turn",
    "World",
    "legacy_schema",
    "load",
    "load_points",
    "load_rows",
    "made_dialogues",
    "make_world",
    "read_dialogues",
    "text_of",
]
