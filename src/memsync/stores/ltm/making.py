"""Makes the memories that exchanges must have, in each layout. Writes nothing and embeds nothing.

A memory has its anchor's id, or the one that the caller has for the anchor.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from memsync.model.ids import PointId
from memsync.model.records import Exchange, Place, Point, Speakers
from memsync.stores.history.cast import speakers
from memsync.stores.ltm.layouts import collection_of_persona
from memsync.stores.ltm.made import Made
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.postgres import Session


def made_shared(
    exchanges: Sequence[Exchange],
    collection: str,
    codec: PayloadCodec,
    embedder: str,
    ids: Mapping[UUID, PointId],
    over: Mapping[Place, Point],
) -> list[Made]:
    """The memories of the shared layout, for the vectors of this embedder.

    One that will be written over a point in `over` stays a copy of the app's point of which that
    one is a copy: when its row is gone, nothing else ties the two together.
    """
    made = []
    for each in exchanges:
        place = Place(collection, ids.get(each.anchor_id, each.anchor_id))
        payload = codec.encode(each, embedder)
        if old := over.get(place):
            payload |= codec.origin(old.payload)
        made.append(Made(each, place, payload, each.text))
    return made


def made_per_persona(
    session: Session, exchanges: Sequence[Exchange], ids: Mapping[UUID, PointId]
) -> list[Made]:
    """The memories as the app writes them, each in its persona's collection."""
    names = speakers(session, {(each.persona_id, each.personality_id) for each in exchanges})
    made = []
    for each in exchanges:
        # One of the two may have been deleted since, and the exchange with it.
        if (speak := names.get((each.persona_id, each.personality_id))) is None:
            continue
        payload = as_deployed(each, speak)
        home = collection_of_persona(each.persona_id)
        place = Place(home, ids.get(each.anchor_id, each.anchor_id))
        made.append(Made(each, place, payload, str(payload["content"])))
    return made


def as_deployed(exchange: Exchange, speakers: Speakers) -> dict[str, object]:
    """The payload of the exchange's memory as the app writes it. Its `content` is what is embedded.

    The app leaves a key out where it has no value.
    """
    return {
        "personalityId": str(exchange.personality_id),
        "personalityName": speakers.personality,
        "personaId": str(exchange.persona_id),
        "content": (
            f"User ({speakers.persona}): {exchange.user_text}\n"
            f"{speakers.personality}: {exchange.assistant_text}"
        ),
        "canonScope": "global",
        "summaryType": "conversation",
        "createdAt": exchange.created_at_ms,
        "channelId": exchange.channel_id,
        "messageIds": [str(exchange.said_id), str(exchange.anchor_id)],
    }
