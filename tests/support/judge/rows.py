"""Edits of the history in Postgres, past memsync."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from agmi.adapters.base import Record

from support.judge.adapter import Judged, Key
from support.lab import BASIL, C, Lab

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memsync.model.records import Exchange

READ = """SELECT id, role, content, channel_id, personality_id, persona_id, created_at
FROM conversation_history WHERE persona_id = %(persona)s ORDER BY created_at, role DESC, id"""
WRITE = """INSERT INTO conversation_history
    (id, role, content, channel_id, personality_id, persona_id, created_at)
VALUES (%(id)s, %(role)s, %(content)s, %(channel_id)s, %(personality_id)s, %(persona_id)s,
        %(created_at)s::timestamp)"""
CHANGES = {
    "persona": f"persona_id = '{C}'",
    "personality": f"personality_id = '{BASIL}'",
    "channel": "channel_id = '42'",
    "day": "created_at = created_at - interval '1 day'",
    "second": "created_at = created_at - interval '1 second'",
}
BOTH = ("user", "assistant")


class RowsStore(Judged):
    """The history of persona A. A record is an exchange with the messages of these roles.

    Where only one role is given, the other message of each exchange stays as it is.
    """

    in_postgres = True

    def __init__(self, lab: Lab, *, roles: Sequence[str] = BOTH, **settings: Any) -> None:
        super().__init__(lab, **settings)
        self.roles = tuple(roles)

    def _in_order(self, said: Sequence[Exchange]) -> list[Key]:
        return [str(e.said_id if self.roles[0] == "user" else e.anchor_id) for e in said]

    def _read(self, persona: UUID) -> dict[Key, dict[str, Any]]:
        names = ("id", "role", "content", "channel_id", "personality_id", "persona_id")
        rows = [
            dict(zip((*names, "created_at"), map(str, row), strict=True))
            for row in self.lab.sql(READ, persona=persona)
        ]
        mine = [row for row in rows if row["role"] in self.roles]
        number = len(self.roles)
        exchanges = [mine[at : at + number] for at in range(0, len(mine), number)]
        return {each[0]["id"]: {"rows": each} for each in exchanges}

    def _write(self, key: Key, fields: dict[str, Any]) -> None:
        there = self._found(key)
        if there is None:
            for row in fields["rows"]:
                self.lab.sql(WRITE, **row)
            return
        for row, given in zip(there, fields["rows"], strict=True):
            self.lab.sql(
                "UPDATE conversation_history SET content = %(content)s WHERE id = %(id)s",
                id=row["id"],
                content=given["content"],
            )

    def _found(self, key: Key) -> list[dict[str, Any]] | None:
        rows = (each.fields for each in self.read_all_raw())
        return next((each["rows"] for each in rows if each["key"] == key), None)

    def _ids(self, key: Key) -> list[str]:
        return [row["id"] for row in self._found(key) or ()]

    def _delete(self, key: Key) -> None:
        self.lab.sql(
            "DELETE FROM conversation_history WHERE id = ANY(%(ids)s::uuid[])", ids=self._ids(key)
        )

    def _change(self, key: Key) -> None:
        change = CHANGES[self.field]
        statement = f"UPDATE conversation_history SET {change} WHERE id = ANY(%(ids)s::uuid[])"  # noqa: S608  changes of ours
        self.lab.sql(statement, ids=self._ids(key))

    def mutate_payload(self, record: Record) -> Record:
        """Other words in the last message, or with `field` these after its own."""
        *before, last = record.fields["rows"]
        said = last["content"]
        other = f"{said} and more" if self.field == "added" else f"x {said}"
        return Record(record.seq, record.fields | {"rows": [*before, last | {"content": other}]})

    def forge_record(self, template: Record) -> Record:
        """An exchange that was not, a minute after the template, or a day before all."""
        record = self.mutate_payload(template)
        shift = "- interval '1 day'" if self.old else "+ interval '1 minute'"
        rows = []
        for row in record.fields["rows"]:
            statement = f"SELECT (%(at)s::timestamp {shift})::text"
            at = self.lab.sql(statement, at=row["created_at"])[0][0]
            rows.append(row | {"id": str(uuid4()), "created_at": at})
        return Record(template.seq + 1, {"key": rows[0]["id"], "rows": rows})

    def payload_of(self, record: Record) -> str:
        """What was said."""
        return "\n".join(row["content"] for row in record.fields["rows"])

    def owner_of(self, record: Record) -> str:
        """Whose it is."""
        return str(record.fields["rows"][0]["persona_id"])
