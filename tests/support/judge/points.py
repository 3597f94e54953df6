"""Edits of memories in Qdrant, past memsync."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from agmi.adapters.base import Record

from memsync.model.digests import buckets
from memsync.model.ids import point_id_of
from memsync.model.records import Point
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.payload import memory_digest_of
from memsync.stores.vectors.protocol import scan
from support.judge.adapter import DAY_MS, Hand, Judged, Key
from support.lab import BASIL, LONG_AGO, A, C, Lab, embed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memsync.model.records import Exchange

TEXTS = ("user_text", "assistant_text", "content")
DIGEST = ("digest", "fp1", "fp2")


class PointsStore(Judged):
    """The memories of persona A. Each keeps its id and its vector, whatever its payload becomes."""

    in_postgres = False

    def __init__(self, lab: Lab, *, hand: Hand = Hand.WORDS, **settings: Any) -> None:
        super().__init__(lab, **settings)
        self.hand = hand

    def _in_order(self, said: Sequence[Exchange]) -> list[Key]:
        return [str(self.lab.place(each).point_id) for each in said]

    def _home(self, persona: UUID = A) -> str:
        return self.lab.ltm.home_of(persona)

    def _read(self, persona: UUID) -> dict[Key, dict[str, Any]]:
        home, key = self._home(persona), self._key("persona_id")
        if self.lab.vectors.describe(home) is None:
            return {}
        shared = self.lab.ltm.layout is Layout.SHARED
        return {
            str(each.id): {"payload": dict(each.payload)}
            for each in scan(self.lab.vectors, home)
            if not shared or each.payload[key] == str(persona)
        }

    def _key(self, name: str) -> str:
        return self.lab.ltm.codec_of(self._home()).key(name)

    def _write(self, key: Key, fields: dict[str, Any]) -> None:
        point_id, given = point_id_of(key), dict(fields["payload"])
        there = self.lab.vectors.retrieve(self._home(), [point_id], vectors=True)
        if not there:
            vector = tuple(embed([self.payload_of(Record(0, fields))])[0])
            self._put(Point(point_id, given, vector), fit=self.hand is not Hand.WORDS)
            return
        [point] = there
        persona = self._key("persona_id")
        if self.hand is Hand.PAYLOAD:
            payload = given | {persona: point.payload[persona]}
        else:
            payload = dict(point.payload) | {n: given[n] for n in TEXTS if n in given}
        self._put(Point(point_id, payload, point.vector), fit=self.hand is Hand.DIGEST)

    def _put(self, point: Point, *, fit: bool) -> None:
        payload = self._fitting(point) if fit else point.payload
        self.lab.vectors.upsert(self._home(), [Point(point.id, payload, point.vector)])

    def _fitting(self, point: Point) -> Mapping[str, Any]:
        """The payload with the digest that belongs to it, where it has one."""
        if self._key("digest") not in point.payload:
            return point.payload
        memory = self.lab.ltm.codec_of(self._home()).decode(point.payload).memory
        digest = memory_digest_of(point.id, memory)
        assert digest is not None
        return dict(point.payload) | dict(zip(DIGEST, (digest, *buckets(digest)), strict=True))

    def _delete(self, key: Key) -> None:
        self.lab.vectors.delete(self._home(), [point_id_of(key)])

    def _change(self, key: Key) -> None:
        [point] = self.lab.vectors.retrieve(self._home(), [point_id_of(key)], vectors=True)
        payload: dict[str, Any] = dict(point.payload)
        at = self._key("created_at")
        changes: dict[str, dict[str, Any]] = {
            "persona": {self._key("persona_id"): str(C)},
            "personality": {self._key("personality_id"): str(BASIL)},
            "channel": {self._key("channel_id"): "42"},
            "day": {at: payload[at] - DAY_MS},
            "second": {at: payload[at] - 1000},
            "embedder": {self._key("embedder"): "another/8"},
            "unknown": {"agmi_meta_tampered": True},
        }
        changed = Point(point.id, payload | changes[self.field], point.vector)
        self._put(changed, fit=self.hand is not Hand.WORDS)

    def mutate_payload(self, record: Record) -> Record:
        """Other words, or with `field` these after the memory's own."""
        payload = dict(record.fields["payload"])
        for name in ("assistant_text", "content"):
            if name in payload:
                said = payload[name]
                other = f"{said} and more" if self.field == "added" else said.replace("answer", "x")
                payload[name] = other
        return Record(record.seq, record.fields | {"payload": payload})

    def forge_record(self, template: Record) -> Record:
        """A memory of an exchange that never was, a minute after the template or a day before."""
        record = self.mutate_payload(template)
        at = self._key("created_at")
        when = round(LONG_AGO.timestamp() * 1000) - DAY_MS if self.old else 0
        payload = record.fields["payload"]
        payload |= {at: when or payload[at] + 60_000}
        return Record(template.seq + 1, {"key": str(uuid4()), "payload": payload})

    def payload_of(self, record: Record) -> str:
        """What a memory says."""
        return "\n".join(str(record.fields["payload"].get(name)) for name in TEXTS)

    def owner_of(self, record: Record) -> str:
        """Whose it says that it is."""
        return str(record.fields["payload"].get(self._key("persona_id")))
