"""Edits of the ledger in Postgres, past memsync."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from agmi.adapters.base import Record

from support.judge.adapter import Judged, Key
from support.lab import BASIL, C
from support.ledger import adopt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memsync.model.records import Exchange

READ = """SELECT point_id, to_jsonb(m) - 'noted_at' FROM memsync.memories m
WHERE collection = %(home)s AND persona_id = %(persona)s"""
WRITE = """INSERT INTO memsync.memories
SELECT * FROM jsonb_populate_record(
    NULL::memsync.memories, %(row)s::jsonb || jsonb_build_object('noted_at', now()))
ON CONFLICT (collection, point_id) DO UPDATE SET stored = excluded.stored"""
CHANGES = {
    "persona": f"persona_id = '{C}'",
    "personality": f"personality_id = '{BASIL}'",
    "channel": "channel_id = '42'",
    "day": "created_at_ms = created_at_ms - 86400000",
    "removed": "removed = true",
}


class LedgerStore(Judged):
    """What the ledger says of the memories of persona A: its content is the digest."""

    in_postgres = True

    def _in_order(self, said: Sequence[Exchange]) -> list[Key]:
        return [str(self.lab.place(each).point_id) for each in said]

    def append_genuine(self) -> None:
        """One more exchange, whose memory is written down."""
        super().append_genuine()
        adopt(self.lab)

    def _read(self, persona: UUID) -> dict[Key, dict[str, Any]]:
        home = self.lab.ltm.home_of(persona)
        return {key: {"row": row} for key, row in self.lab.sql(READ, home=home, persona=persona)}

    def _write(self, key: Key, fields: dict[str, Any]) -> None:
        there = {each.fields["key"]: each.fields["row"] for each in self.read_all_raw()}
        row = there.get(key, fields["row"]) | {"stored": fields["row"]["stored"]}
        self.lab.sql(WRITE, row=json.dumps(row))

    def _delete(self, key: Key) -> None:
        self.lab.sql("DELETE FROM memsync.memories WHERE point_id = %(key)s", key=key)

    def _change(self, key: Key) -> None:
        statement = f"UPDATE memsync.memories SET {CHANGES[self.field]} WHERE point_id = %(key)s"  # noqa: S608  changes of ours
        self.lab.sql(statement, key=key)

    def mutate_payload(self, record: Record) -> Record:
        """Another digest."""
        row = record.fields["row"] | {"stored": "\\x" + "0f" * 32}
        return Record(record.seq, record.fields | {"row": row})

    def forge_record(self, template: Record) -> Record:
        """What was never there is written down."""
        row = self.mutate_payload(template).fields["row"]
        key = str(uuid4())
        return Record(template.seq + 1, {"key": key, "row": row | {"point_id": key}})

    def payload_of(self, record: Record) -> str:
        """The digest."""
        return str(record.fields["row"]["stored"])

    def owner_of(self, record: Record) -> str:
        """Whose it is."""
        return str(record.fields["row"]["persona_id"])
