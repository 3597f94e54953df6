"""Puts memsync before the judge, edit by edit, and writes down what was found, as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agmi import check
from agmi.attacks.at_rest import AT_REST_ATTACKS_WITH_SNAPSHOT

from memsync.reconcile.seen_vectors import Verify
from memsync.stores.ltm.layouts import Layout
from support.judge.adapter import Hand, Judged
from support.judge.ledger import LedgerStore
from support.judge.points import PointsStore
from support.judge.rows import RowsStore
from support.lab import B

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from support.lab import Lab

FOUND, NOT_FOUND, NONE = "found", "**not**", ""
EDITS = {each.name: each for each in AT_REST_ATTACKS_WITH_SNAPSHOT}


@dataclass(frozen=True)
class Edit:
    """A row: one of the judge's edits, and how the adapter makes it. `only` are its stores."""

    label: str
    name: str
    how: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[type[Judged], ...] = (PointsStore, RowsStore, LedgerStore)


@dataclass(frozen=True)
class Store:
    """A column: what is edited. Of memories each hand is tried; `hands` has their settings."""

    label: str
    kind: type[Judged]
    how: Mapping[str, Any] = field(default_factory=dict)


_SAID = (PointsStore, RowsStore)
TABLE = (
    Edit("T1 content: other words", "tamper"),
    Edit("T1 content: words added at the end", "tamper", {"field": "added"}, _SAID),
    Edit(
        "T1, added, with `--verify-vectors all`",
        "tamper",
        {"field": "added", "verify": Verify()},
        (PointsStore,),
    ),
    Edit("T2 the newest two removed", "truncate"),
    Edit("T3 one from the middle removed", "delete_middle"),
    Edit("T4 two exchanged", "reorder"),
    Edit("T4, with `--verify-vectors all`", "reorder", {"verify": Verify()}, (PointsStore,)),
    Edit("T5 forged, newer than all", "forge"),
    Edit("T5 forged, older than its thread", "forge", {"old": True}, _SAID),
    Edit("T6 another user's put in its place", "cross_replay"),
    Edit("T6 that of the user's other persona", "cross_replay", {"other": B}),
    Edit("T7 an older one put in its place", "rollback_replay"),
    Edit("T8 metadata: persona", "metadata_tamper", {"field": "persona"}),
    Edit("T8 metadata: personality", "metadata_tamper", {"field": "personality"}),
    Edit("T8 metadata: channel", "metadata_tamper", {"field": "channel"}),
    Edit("T8 metadata: time, by a day", "metadata_tamper", {"field": "day"}),
    Edit("T8 metadata: time, by a second", "metadata_tamper", {"field": "second"}, _SAID),
    Edit("T8 metadata: embedder", "metadata_tamper", {"field": "embedder"}, (PointsStore,)),
    Edit("T8 metadata: an unknown key", "metadata_tamper", {"field": "unknown"}, (PointsStore,)),
    Edit("T8 metadata: marked as removed", "metadata_tamper", {"field": "removed"}, (LedgerStore,)),
    Edit("T9 an older copy of the store", "snapshot_rollback"),
    Edit("T9 older copies of both stores", "snapshot_rollback", {"both": True}),
)
STORES = (
    Store("memory", PointsStore),
    Store("archived memory", PointsStore, {"archived": True}),
    Store("exchange", RowsStore),
    Store("its message alone", RowsStore, {"roles": ["user"]}),
    Store("its reply alone", RowsStore, {"roles": ["assistant"]}),
    Store("ledger", LedgerStore),
    Store("ledger, archived", LedgerStore, {"archived": True}),
)


def verdict(edit: Edit, adapter: Judged) -> str:
    """What the judge says. Raises: AssertionError where it cannot say."""
    result = EDITS[edit.name]().run(adapter)
    said = check.verdict(result, adapter)
    assert said in {"REPORTED", "ACCEPTED"}, (edit, result)
    return str(said)


def table(lab: Lab, *, deep: bool) -> str:
    """The verdicts about every edit of every store, as Markdown."""
    return "\n".join(_lines(lab, deep=deep))


def _lines(lab: Lab, *, deep: bool) -> Iterator[str]:
    yield f"| edit | {' | '.join(each.label for each in STORES)} |"
    yield "| --- " * (1 + len(STORES)) + "|"
    for edit in TABLE:
        cells = [_cell(lab, edit, each, deep=deep) for each in STORES]
        yield f"| {edit.label} | {' | '.join(cells)} |"


def _cell(lab: Lab, edit: Edit, store: Store, *, deep: bool) -> str:
    if store.kind not in edit.only:
        return NONE
    how = {**store.how, **edit.how}
    if store.kind is not PointsStore:
        return FOUND if _is_found(lab, edit, store, how, deep=deep) else NOT_FOUND
    hands = [each for each in Hand if lab.ltm.layout is Layout.SHARED or each is not Hand.DIGEST]
    found = [
        each for each in hands if _is_found(lab, edit, store, {**how, "hand": each}, deep=deep)
    ]
    if not found or found == hands:
        return FOUND if found else NOT_FOUND
    return f"**not**: {', '.join(each for each in hands if each not in found)}"


def _is_found(lab: Lab, edit: Edit, store: Store, how: Mapping[str, Any], *, deep: bool) -> bool:
    return verdict(edit, store.kind(lab, deep=deep, **how)) == "REPORTED"
