"""A legacy deployment to practise on: the app's database and memories, made from a seed.

`make_world` turns a `Recipe` into a `World` with the truth about it in its `Manifest`; `load`
writes it into stores. The demo, the tests and the benchmarks all use this one generator. Knows
the deployed layout only, nothing of migrating or auditing.
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
