"""What an audit by fingerprint must not trust, and when it reads everything instead."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from memsync.errors import InvalidInput
from memsync.model.records import joined
from memsync.reconcile.locating import differing
from memsync.stores.ltm.fingerprints import Fingerprint, Key
from memsync.stores.ltm.ledger import Ledger
from memsync.stores.vectors import IndexKind
from support.failing import Failing
from support.lab import LONG_AGO, C, Lab
from support.ledger import aged

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from functools import partial

    from memsync.model.ids import PointId
    from memsync.model.records import Exchange
    from memsync.reconcile.findings import Audit

FOREIGN_KEY = "conversation_history_persona_id_fkey"


@pytest.fixture
def lab(open_lab: partial[Lab]) -> Lab:
    """A lab in the shared layout, whose ledger the relay has written."""
    return open_lab()


@pytest.fixture
def own_lab(open_lab: partial[Lab], own_database: str) -> Lab:
    """A lab on a database of its own, which may be altered."""
    return open_lab(url=own_database)


def agreed(lab: Lab) -> Audit:
    """The audit by fingerprint, which says what that of everything says."""
    quick, deep = lab.audit(deep=False), lab.audit(deep=True)
    for each in (quick, deep):
        assert each.complete
    assert [_subject(each) for each in quick.faults] == [_subject(each) for each in deep.faults]
    for name in ("rows_checked", "points_checked", "archived", "settling"):
        assert getattr(quick, name) == getattr(deep, name), name
    return quick


def _subject(each: object) -> tuple[object, ...]:
    return each.name, each.store, each.key  # type: ignore[attr-defined]


def said_again(lab: Lab, each: Exchange) -> UUID:
    """Write the rows of an exchange once more, under other ids. Returns the anchor's."""
    said, anchor = uuid4(), uuid4()
    answered = LONG_AGO.replace(tzinfo=None) + timedelta(
        milliseconds=each.created_at_ms - round(LONG_AGO.timestamp() * 1000)
    )
    for id_, role, text, at in (
        (said, "user", each.user_text, answered - timedelta(seconds=3)),
        (anchor, "assistant", each.assistant_text, answered),
    ):
        lab.sql(
            "INSERT INTO conversation_history (id, channel_id, personality_id, persona_id, role, "
            "content, created_at) VALUES (%(id)s, %(channel)s, %(personality)s, %(persona)s, "
            "%(role)s, %(text)s, %(at)s)",
            id=id_,
            channel=each.channel_id,
            personality=each.personality_id,
            persona=each.persona_id,
            role=role,
            text=text,
            at=at,
        )
    return anchor


# ---------------------------------------------------------------------- what must be read


def test_memories_of_a_persona_that_was_deleted(own_lab: Lab) -> None:
    """Their rows went with the persona, and the counts of both stores are equal; one plan removes
    them, though the ledger has them as archived.
    """
    own_lab.settled(4)
    own_lab.sql("DELETE FROM personas WHERE id = %(id)s", id=C)
    assert {"unknown-persona": 4} == agreed(own_lab).counts
    own_lab.apply(own_lab.plan())
    assert agreed(own_lab).ok


def test_rows_of_a_persona_that_does_not_exist(own_lab: Lab) -> None:
    """A restore may go past the foreign key; then the memory is exactly right, and nobody's."""
    own_lab.settled(4)
    own_lab.sql(f"ALTER TABLE conversation_history DROP CONSTRAINT {FOREIGN_KEY}")
    own_lab.sql("DELETE FROM personas WHERE id = %(id)s", id=C)
    assert {"unknown-persona": 4} == agreed(own_lab).counts


@pytest.mark.parametrize("point_id", [7, UUID(int=7)])
@pytest.mark.parametrize(
    "payload", [{}, {"content": "User (x): hi\nAda: ho"}], ids=["none", "text"]
)
def test_points_that_no_count_has(lab: Lab, point_id: PointId, payload: dict[str, object]) -> None:
    """They have neither a bucket nor a persona, and the ledger does not know them."""
    lab.settled(4)
    lab.put(point_id, payload)
    found = agreed(lab)
    assert (1, 8) == (sum(found.counts.values()), found.trusted)


def test_points_that_no_count_has_while_others_are_written(lab: Lab) -> None:
    """As many new memories as there are such points hide none of them."""
    lab.settled()
    lab.put(UUID(int=7), {"content": "x"})
    store = Failing(lab.vectors)
    lab.ltm = lab.with_store(store)

    def meanwhile(call: str) -> None:
        if call == "facet":
            store.meanwhile = None
            lab.say(2)
            lab.sync()

    store.meanwhile = meanwhile
    assert {"missing-persona": 1} == lab.audit(deep=False).counts


def test_the_apps_own_payload_in_the_shared_collection(lab: Lab) -> None:
    """An older version of the app writes its keys there: camelCase, and no digest."""
    said = lab.settled(4)
    lab.deploy(said[0], collection=lab.home)
    found = agreed(lab)
    assert (["duplicate-point"], 8) == (list(found.counts), found.trusted)


def test_words_that_are_written_again(lab: Lab) -> None:
    """Their memory was archived by then: it is theirs, and a second one is a duplicate."""
    said = lab.settled(6)
    aged(lab, timedelta(minutes=2))
    with lab.postgres.session() as session:
        assert Ledger(session).archive()
    anchor = said_again(lab, said[0])
    assert {"foreign-point-id": 1} == agreed(lab).counts
    lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(id)s)", id=anchor)
    lab.sync()
    assert {"duplicate-point": 1} == agreed(lab).counts


@pytest.mark.parametrize("what", ["beside", "joined"])
def test_what_a_repair_leaves_is_judged_before_it_is_trusted(lab: Lab, what: str) -> None:
    """The persona is put right, and the text stays as it was: the next audit must see that."""
    said = lab.settled(4)[0]
    text = joined(said.user_text, said.assistant_text)
    more = {"content": text}
    if what == "joined":
        lab.respell(said, persona_id=None, user_text=None, assistant_text=None, **more)
    else:
        lab.respell(said, persona_id=None, **more)
    lab.apply(lab.plan(lab.audit(deep=True)))
    found = agreed(lab)
    lab.apply(lab.plan(lab.audit(deep=True)))
    assert agreed(lab).ok
    assert found.ok or found.counts == {"payload-drift": 1}


def test_archived_memories_without_a_digest_do_not_end_the_mode(lab: Lab) -> None:
    """They are read each time, and the others are trusted."""
    said = lab.settled(6)
    for each in said[:2]:
        lab.respell(each, personality_id=None, digest=None, fp1=None, fp2=None)
    aged(lab, timedelta(minutes=2))
    found = agreed(lab)
    assert found.trusted == len(said) - 2


@pytest.mark.parametrize(
    "changes",
    [
        {"persona_id": "itself, in a list"},
        {"persona_id": "ITSELF"},
        {"fp1": "itself, in a list"},
    ],
    ids=str,
)
def test_what_qdrant_counts_as_the_same_needs_a_deep_audit(
    lab: Lab, changes: dict[str, str]
) -> None:
    """As the page on reconcile says."""
    said = lab.settled(4)[0]
    [(key, how)] = changes.items()
    value = lab.point(said.anchor_id).payload[key]
    lab.respell(said, **{key: [value] if "list" in how else str(value).upper()})
    assert lab.audit(deep=False).ok
    assert not lab.audit(deep=True).ok


# ---------------------------------------------------------------------- when everything is read


def test_without_a_ledger_everything_is_read(own_lab: Lab) -> None:
    """An older memsync made the schema."""
    own_lab.settled(2)
    own_lab.sql("DROP TABLE memsync.memories")
    assert "has no ledger" in str(agreed(own_lab).why_whole)


def test_without_the_function_for_digests_everything_is_read(own_lab: Lab) -> None:
    """And the deep audit reads exchanges instead of their digests."""
    own_lab.settled(2)
    own_lab.sql("DROP FUNCTION memsync.memory_digest")
    assert "has no function memsync.memory_digest" in str(agreed(own_lab).why_whole)


def test_where_other_collections_hold_memories_everything_is_read(lab: Lab) -> None:
    """What they hold may be the copy of any memory."""
    said = lab.settled(4)
    lab.deploy(said[0])
    assert "1 other collection may hold copies" in str(agreed(lab).why_whole)


def test_where_a_strict_server_refuses_everything_is_read(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is the server's."""
    lab.settled(4)

    def facet(*_: object, **__: object) -> object:
        raise InvalidInput("Limit exceeded")

    monkeypatch.setattr(type(lab.vectors), "facet", facet)
    assert "Limit exceeded" in str(agreed(lab).why_whole)


def test_a_wrong_kind_of_index_is_not_counted_by(lab: Lab) -> None:
    """An index of texts counts no numbers."""
    lab.settled(4)
    info = lab.vectors.describe(lab.home)
    assert info is not None
    with pytest.MonkeyPatch.context() as other:
        wrong = {**info.indexes, "fp1": IndexKind.KEYWORD}
        other.setattr(
            type(lab.vectors), "describe", lambda *_: type(info)(info.dims, info.distance, wrong)
        )
        assert "has no such payload index as it needs of fp1" in str(lab.ltm.fingerprints.why_not())


# ---------------------------------------------------------------------- the search itself


class Side:
    """Fingerprints in memory."""

    def __init__(self, prints: Mapping[int, tuple[int | None, int | None]]) -> None:
        self.prints = [
            Fingerprint(UUID(int=n), str(n), fp1, fp2, "p") for n, (fp1, fp2) in prints.items()
        ]
        self.read: list[Mapping[Key, Collection[object]]] = []

    def count(self) -> int:
        return len(self.prints)

    def histogram(self, key: Key) -> Counter[str | int]:
        values = (each.value(key) for each in self.prints)
        return Counter(each for each in values if each is not None)

    def where(self, where: Mapping[Key, Collection[object]]) -> Iterator[Fingerprint]:
        self.read.append(where)
        for each in self.prints:
            if all(each.value(key) in values for key, values in where.items()):
                yield each

    def lacking(self) -> Iterator[Fingerprint]:
        yield from (each for each in self.prints if None in {each.fp1, each.fp2})

    def of(self, ids: Iterable[PointId]) -> Iterator[Fingerprint]:
        wanted = set(ids)
        yield from (each for each in self.prints if each.point_id in wanted)


def searched(points: Side, ledger: Side, most: int = 100) -> set[int] | None:
    """The numbers of the memories that differ; None where everything must be read."""
    found = differing(points, ledger, most)  # type: ignore[arg-type]
    if not isinstance(found, frozenset):
        return None
    return {each.int for each in found if isinstance(each, UUID)}


LEDGER: dict[int, tuple[int | None, int | None]] = {n: (n, n) for n in range(20)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, set()),
        ({5: (6, 9)}, {5}),
        ({5: (6, 9), 6: (5, 6)}, {5, 6}),
        ({1: (None, 1)}, {1}),
        ({1: (None, None), 2: (2, 3), 3: (3, 4)}, {1, 2, 3}),
        ({30: (3, 3)}, {30}),
    ],
    ids=["none", "both", "hidden behind another", "lacking", "several", "more"],
)
def test_the_search_goes_on_until_all_counts_are_explained(
    changes: dict[int, tuple[int | None, int | None]], expected: set[int]
) -> None:
    """Whatever hides behind what."""
    assert expected == searched(Side(LEDGER | changes), Side(LEDGER))


def test_what_was_written_between_the_counts_is_no_difference() -> None:
    """One store was counted before a write, the other one after it; by now both have it."""
    points = Side({**LEDGER, 30: (3, 4)})
    before = Side(LEDGER)
    points.histogram = before.histogram  # type: ignore[method-assign]
    points.count = iter((20, 21)).__next__  # type: ignore[method-assign]
    found = differing(points, Side({**LEDGER, 30: (3, 4)}), 100)  # type: ignore[arg-type]
    assert frozenset() == found


def test_too_many_are_not_looked_at() -> None:
    """Neither in one store nor in the other: nothing is read for it."""
    many = {n: (n, 0) for n in range(200)}
    for points, ledger in ((Side(many), Side({})), (Side({}), Side(many))):
        assert searched(points, ledger) is None
        assert not points.read
        assert not ledger.read


def test_values_that_are_not_counted_are_not_trusted() -> None:
    """A point that lacks nothing, and is in no count: everything is read."""
    points = Side({**LEDGER, 40: (None, None)})
    points.lacking = lambda: iter(())  # type: ignore[method-assign]
    assert searched(points, Side(LEDGER)) is None


def test_more_personas_than_are_counted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is read, and the report says why; nothing seems to lack a value."""
    lab.settled()
    for module in ("stores.ltm.fingerprints", "reconcile.locating"):
        monkeypatch.setattr(f"memsync.{module}.VALUES_MAX", 2)
    audit = lab.audit(deep=False)
    assert audit.ok
    assert "2 personas or more, too many to count" in str(audit.why_whole)
