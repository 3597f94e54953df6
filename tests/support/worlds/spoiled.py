"""Worlds with faults: which kinds each layout can have, and a world with some of them."""

from collections.abc import Callable, Mapping

from memsync.stores.ltm.layouts import Layout
from support.worlds import faults as kind_of
from support.worlds.clean import clean_world
from support.worlds.world import World

FAULTS: Mapping[Layout, Mapping[str, Callable[[World], bool]]] = {
    layout: {
        "lost": kind_of.lost,
        "elsewhere": kind_of.elsewhere,
        "unsaid": kind_of.unsaid,
        "never said": kind_of.never_said,
        "never said beside": kind_of.never_said_beside,
        "archived": kind_of.archived,
        "misplaced": kind_of.misplaced,
        "newer": kind_of.newer,
        "mismatch": kind_of.mismatch,
        "unknown": kind_of.unknown,
        "contradicting": kind_of.contradicting,
        "twice": kind_of.twice,
        **more,
    }
    for layout, more in {
        Layout.PER_PERSONA: kind_of.APP,
        Layout.SHARED: {**kind_of.SHARED, "foreign id": kind_of.foreign_id},
    }.items()
}


def spoiled_world(seed: int, layout: Layout, size: int, faults: int) -> World:
    """A world with up to so many faults, each at a place of its own."""
    world = clean_world(seed, layout, size)
    kinds = FAULTS[layout]
    for _ in range(faults):
        kind = world.rng.choice(sorted(kinds))
        if kinds[kind](world):
            world.planted.append(kind)
    return world
