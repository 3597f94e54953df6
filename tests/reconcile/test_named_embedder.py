"""Tests that an audit compares a named embedder with the one that made the memories, and no other.

The findings themselves have their laws in support/laws/schema.py.
"""

import sys
from functools import partial
from types import ModuleType

import pytest

from memsync import reconcile
from memsync.errors import DimensionMismatch
from memsync.model.ids import PersonaId
from memsync.reconcile.findings import Audit, Words
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from support.lab import DIMS, A, Lab, embed
from support.models import Model, Status

NAMED = "named_embedders"


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module whose attributes an operator can name as embedders."""
    module = ModuleType(NAMED)
    module.__dict__.update(
        right=embed,
        larger=lambda texts: [[1.0] * (DIMS + 1) for _ in texts],
        down=Model(ConnectionError("refused")),
        limited=Model(Status(429)),
        broken=Model(KeyError("embedding")),
    )
    monkeypatch.setitem(sys.modules, NAMED, module)
    return module


def audits(lab: Lab, **named: str) -> tuple[Audit, Audit]:
    """Audit and check of a process that has these settings, and loads the embedder itself."""
    settings = Settings(
        postgres_url=lab.url, qdrant_url=lab.settings.qdrant_url, collection=lab.home, **named
    )
    return tuple(  # type: ignore[return-value]  # two of them
        look(lab.postgres, LongTermMemory(lab.vectors, settings), settings)
        for look in (reconcile.audit, reconcile.check)
    )


def test_an_embedder_that_nobody_named_is_neither_loaded_nor_compared(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a name in the settings an audit is clean, whatever made the memories."""
    lab.settled()

    def load(name: str) -> None:
        pytest.fail(f"{name} was loaded")

    monkeypatch.setattr("memsync.stores.ltm.store.load_embedder", load)
    for found in audits(lab):
        assert ({}, ()) == (found.counts, found.not_checked)


@pytest.mark.usefixtures("named")
def test_the_embedder_of_the_memories_is_clean(open_lab: "partial[Lab]") -> None:
    """The one that made all memories is found right; memories that do not say it are left out."""
    lab = open_lab("edge")
    said = lab.settled()
    for each in said:
        lab.respell(each.anchor_id, embedder=f"{NAMED}:right/{DIMS}")
    lab.respell(said[0].anchor_id, embedder=None)
    for found in audits(lab, embedder=f"{NAMED}:right"):
        assert ({}, True) == (found.counts, found.complete)


@pytest.mark.usefixtures("named")
def test_an_embedder_with_which_recall_fails_is_found_first(any_lab: Lab) -> None:
    """Where a recall would fail for the size of its vectors, audit and check say so."""
    for each in any_lab.settled():
        any_lab.respell(each.anchor_id, embedder=f"{NAMED}:right/{DIMS}")
    for found in audits(any_lab, embedder=f"{NAMED}:larger"):
        [finding] = found.findings
        assert ("dimension-mismatch", "report-only") == (finding.name, finding.grade)
        assert f"MEMSYNC_EMBEDDER={NAMED}:right memsync check" == finding.next_command
    settings = Settings(**{**any_lab.settings.model_dump(), "embedder": f"{NAMED}:larger"})
    with pytest.raises(DimensionMismatch):
        LongTermMemory(any_lab.vectors, settings).recall("x", persona_id=PersonaId(A), limit=1)


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("embedder", ["right", "larger"])
@pytest.mark.parametrize("said", ["my doctor says: no/8", "$(reboot):x/8", "test/8", "a:b/8\n"])
def test_what_is_no_name_of_an_embedder_is_not_shown(
    open_lab: "partial[Lab]", said: str, embedder: str
) -> None:
    """A payload may hold people's words, which stand neither in a report nor in a command."""
    lab = open_lab("edge")
    for each in lab.settled():
        lab.respell(each.anchor_id, embedder=said)
    for found in audits(lab, embedder=f"{NAMED}:{embedder}"):
        [finding] = found.findings
        assert f"memsync rules {finding.code}" == finding.next_command
        assert said not in finding.key
        if embedder == "right":
            assert Words.of(said) == finding.evidence["found"]


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("embedder", ["down", "limited", "broken", "nowhere"])
def test_a_named_embedder_that_cannot_be_asked_is_unknown(lab: Lab, embedder: str) -> None:
    """The audit is incomplete then, never clean and never cut short; the rest is still found."""
    said = lab.settled()
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    for found in audits(lab, embedder=f"{NAMED}:{embedder}"):
        assert {"missing-point": 1} == found.counts
        [unknown] = found.not_checked
        assert f"{NAMED}:{embedder}" in unknown
        assert (False, False) == (found.complete, found.ok)


def test_without_a_collection_there_is_nothing_to_compare(lab: Lab) -> None:
    """A named embedder is not loaded where no collection stands."""
    for found in audits(lab, embedder=f"{NAMED}:nowhere"):
        assert found.ok
