"""Generated worlds: a small history with its memories, and faults planted at disjoint places.

A world knows what an audit must report, because it counts what is planted. First it is clean, in
one of the layouts: several personas and personalities, threads, texts said twice, exchanges of one
time, clocks that are off, rows that the app pruned, and collections that the app left behind. Then
faults are planted, each at an exchange of its own.
"""

from support.worlds.clean import clean_world
from support.worlds.spoiled import FAULTS, spoiled_world
from support.worlds.world import HOME, MUTE, World

__all__ = ["FAULTS", "HOME", "MUTE", "World", "clean_world", "spoiled_world"]
