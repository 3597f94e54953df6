"""Traffic on both stores, drawn from a seed: the app, the library, a relay, pruners, an operator.

Each actor is a generator, and what it does up to its next `yield` is one step. Steps are taken one
at a time, in an order that the seed draws, also between the reads of an audit, an adoption and a
relay. There are no threads, and the clock is the traffic's own; so a seed is always the same run.
"""

from support.traffic.actors import ACTORS
from support.traffic.planting import plant
from support.traffic.running import Traffic
from support.traffic.town import Kind, Town

__all__ = ["ACTORS", "Kind", "Town", "Traffic", "plant"]
