"""A world on both stores: its rows in Postgres, and its points in a vector store."""

import psycopg

from memsync.model.records import Point
from memsync.stores.ltm.marks import META
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.vectors.protocol import VectorStore
from support.lab import DIMS, embed
from support.worlds.world import HOME, MUTE, World

_MUTED = """
INSERT INTO personalities
       (id, name, slug, character_info, personality_traits, memory_enabled, updated_at)
VALUES (%s, 'Mute', 'mute', '', '', false, now())"""
_SAY = """
INSERT INTO conversation_history
       (id, channel_id, personality_id, persona_id, role, content, created_at)
VALUES (%s, %s, %s, %s, %s, %s, timestamp '1970-01-01' + %s * interval '1 millisecond')"""
_VECTOR = tuple(embed(["one for all"])[0])


def prepare(connection: "psycopg.Connection[tuple[object, ...]]") -> None:
    """Add what every world needs: the personality whose memory is switched off."""
    connection.execute(_MUTED, [MUTE])


def put(
    world: World,
    connection: "psycopg.Connection[tuple[object, ...]]",
    vectors: VectorStore,
    codec: PayloadCodec,
) -> None:
    """Put the world in the place of the one before."""
    connection.execute("DELETE FROM conversation_history")
    with connection.cursor() as cursor:
        cursor.executemany(_SAY, world.rows)
    for each in vectors.collections():
        if each != META:
            vectors.drop(each)
    if not world.per_persona:
        vectors.create(HOME, DIMS, codec.indexes)
    for collection, points in world.points.items():
        vectors.create(collection, DIMS, {})
        vectors.upsert(collection, [Point(id_, each, _VECTOR) for id_, each in points.items()])
