"""Exchanges as Postgres holds them: rows of queries/history.sql turned into records."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from memsync.model.ids import MessageId, PersonaId, PersonalityId
from memsync.model.records import Exchange
from memsync.stores.postgres import Session

_LAST_UUID = (1 << 128) - 1


def exchange_of(row: Any) -> Exchange:
    """The exchange in a row of the fragment `exchange`."""
    return Exchange(
        anchor_id=MessageId(row.anchor_id),
        persona_id=PersonaId(row.persona_id),
        personality_id=PersonalityId(row.personality_id),
        channel_id=row.channel_id,
        created_at_ms=row.created_at_ms,
        user_text=row.user_text,
        assistant_text=row.assistant_text,
    )


def exchanges_in_order(session: Session, page_rows: int = 1000) -> Iterator[Exchange]:
    """Every exchange in the order of anchor ids, read page by page."""
    start = UUID(int=0)
    while True:
        rows = session.rows("exchanges_page", start=start, limit=page_rows)
        yield from map(exchange_of, rows)
        if len(rows) < page_rows or rows[-1].anchor_id.int == _LAST_UUID:
            return
        start = UUID(int=rows[-1].anchor_id.int + 1)


def exchanges_by_anchor(session: Session, ids: Sequence[UUID]) -> dict[UUID, Exchange]:
    """The exchanges of these anchors; an anchor that forms none is absent."""
    rows = session.rows("exchanges_by_anchor", ids=list(ids))
    return {row.anchor_id: exchange_of(row) for row in rows}
