"""A deep audit reads a shared collection in parts, and its report is the same whoever read them."""

from __future__ import annotations

import json
import os
import signal
import sys
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from memsync import reconcile
from memsync.cli.formats.report import Report
from memsync.errors import InvalidInput, SettingsError, StoreBusy, StoreUnreachable
from memsync.reconcile import deep
from memsync.reconcile.audit_state import AuditState
from memsync.reconcile.deep import Deep, How
from memsync.reconcile.seen_vectors import Verify
from memsync.stores.history.catalog import instance_id
from memsync.stores.ltm import parts
from memsync.stores.ltm.marks import META
from memsync.stores.ltm.parts import Elsewhere, KnownBy, Pace, Part, Seen, packed, unpacked
from memsync.stores.vectors.protocol import scan
from support.failing import Failing
from support.lab import DIMS, Lab
from support.laws.coverage import OLDER, duplicate, foreign_id, missing, orphan
from support.laws.data import stale
from support.laws.isolation import mismatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import partial

    from memsync.model.ids import PointId
    from memsync.model.records import Exchange
    from memsync.reconcile.findings import Audit


@pytest.fixture
def lab(open_lab: partial[Lab], monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab with six kinds of differences, read in parts of seven exchanges."""
    lab = open_lab()
    said = lab.settled(20)
    for number, plant in enumerate((missing, orphan, duplicate, foreign_id, stale, mismatch)):
        plant(lab, said[number * 3 :])
    lab.put(7, dict(lab.point(said[-1].anchor_id).payload))  # an integer id: before all uuids
    monkeypatch.setattr(deep, "_PART_ROWS", 7)
    return lab


def told(audit: Audit) -> dict[str, object]:
    """Everything that a report is made from, in its order."""
    return {
        "findings": [(each.code, each.store, each.key, each.evidence) for each in audit.findings],
        "counts": audit.counts,
        "read": (audit.rows_checked, audit.points_checked, audit.archived, audit.settling),
        "not_checked": audit.not_checked,
    }


def audit(lab: Lab, how: How = deep.ALONE, **more: Any) -> Audit:
    settings = lab.settings
    return reconcile.audit(lab.postgres, lab.ltm, settings, deep=True, how=how, **more)


@pytest.fixture
def whole(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What an audit says that reads everything as one part."""
    with monkeypatch.context() as one:
        one.setattr(deep, "_PART_ROWS", 10_000)
        found = told(audit(lab))
    assert len(found["findings"]) >= 6  # type: ignore[arg-type]
    return found


def test_parts_say_what_the_whole_says(lab: Lab, whole: dict[str, object]) -> None:
    """However small the parts are."""
    assert whole == told(audit(lab))


def test_archived_memories_make_parts_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention leaves many memories and few exchanges. No part has them all."""
    kept = lab.exchanges()[:3]
    lab.unsay(*(each for each in lab.exchanges() if each not in kept))
    sizes: list[int] = []
    real = type(lab.ltm.fingerprints).look_at

    def look_at(self: Any, part: Part, took: Any) -> Seen:
        seen = real(self, part, took)
        sizes.append(seen.points)
        return seen

    monkeypatch.setattr(type(lab.ltm.fingerprints), "look_at", look_at)
    in_parts = told(audit(lab))
    assert len(sizes) > 4
    assert max(sizes) < sum(sizes) / 2
    monkeypatch.setattr(deep, "_PART_ROWS", 10_000)
    assert in_parts == told(audit(lab))


def test_ids_keep_their_order_when_packed() -> None:
    """Integers come first, then uuids bytewise."""
    ids: list[PointId] = [0, 7, 2**64 - 1, UUID(int=0), UUID(int=1), UUID(int=2**128 - 1)]
    data = [packed(each) for each in ids]
    assert sorted(data) == data
    assert ids == list(map(unpacked, data))


# ---------------------------------------------------------------------- others read


class Workers:
    """An executor of threads on the lab's store, which loses what it is told to lose."""

    def __init__(self, lab: Lab, lose: Callable[[int], bool]) -> None:
        self.lab, self.lose, self.made = lab, lose, 0
        self.given: list[int] = []

    def open(self) -> deep._Executor:
        """A new pool, as after the loss of the one before."""
        self.made += 1
        pool = ThreadPoolExecutor(2)
        broken = [False]

        def submit(task: Elsewhere, part: Part) -> Future[Seen]:
            assert task.settings.postgres_url is None, "no worker needs the password of Postgres"
            self.given.append(part.number)
            if broken[0] or self.lose(len(self.given)):
                broken[0] = True
                lost: Future[Seen] = Future()
                lost.set_exception(BrokenExecutor("a worker was killed"))
                return lost
            return pool.submit(self.lab.ltm.fingerprints.look_at, part, lambda _: None)

        executor = deep._Executor(pool, lambda: 2, pool.shutdown)
        object.__setattr__(pool, "submit_part", submit)
        return executor


@pytest.fixture
def by_threads(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[int], bool]], Workers]:
    """Let an audit be read by threads, which lose the parts for which the function says so."""

    def use(lose: Callable[[int], bool]) -> Workers:
        workers = Workers(lab, lose)
        monkeypatch.setattr(Deep, "_executor", lambda _: workers.open())
        monkeypatch.setattr(deep, "_is_embedded", lambda _: False)
        monkeypatch.setattr(
            deep._Executor,
            "submit",
            lambda self, task, part: self.executor.submit_part(task, part),
        )
        return workers

    return use


def test_others_say_the_same(
    lab: Lab, whole: dict[str, object], by_threads: Callable[[Callable[[int], bool]], Workers]
) -> None:
    """In whatever order they finish."""
    workers = by_threads(lambda _: False)
    assert whole == told(audit(lab, How(workers=2)))
    assert (1, sorted(workers.given)) == (workers.made, list(range(len(workers.given))))


def test_no_more_processes_than_parts(
    lab: Lab,
    by_threads: Callable[[Callable[[int], bool]], Workers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each takes a second to begin; one part is read without any."""
    monkeypatch.setattr(deep, "_PART_ROWS", 10_000)
    workers = by_threads(lambda _: False)
    assert audit(lab, How(workers=8)).complete
    assert (0, []) == (workers.made, workers.given)


def test_a_lost_worker_costs_its_parts(
    lab: Lab, whole: dict[str, object], by_threads: Callable[[Callable[[int], bool]], Workers]
) -> None:
    """They are read again by a new pool, and the report is the same."""
    workers = by_threads(lambda number: number == 3)
    assert whole == told(audit(lab, How(workers=2)))
    assert workers.made == 2
    assert len(workers.given) <= len(set(workers.given)) + 4


def test_workers_that_are_always_lost_end_the_audit_as_incomplete(
    lab: Lab, by_threads: Callable[[Callable[[int], bool]], Workers]
) -> None:
    """It is never clean, and says why."""
    by_threads(lambda _: True)
    found = audit(lab, How(workers=2))
    assert not found.complete
    assert "the workers were lost 4 times" in str(found.not_checked)


def test_processes_read_a_server(open_lab: partial[Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of memsync's own, on a real server; the report is the same."""
    lab = open_lab("server")
    said = lab.settled(20)
    missing(lab, said)
    stale(lab, said[3:])
    one = told(audit(lab))
    monkeypatch.setattr(deep, "_PART_ROWS", 7)
    notes: list[str] = []
    assert one == told(audit(lab, How(workers=2), tell=lambda each: notes.append(each.what)))
    assert not [each for each in notes if "alone" in each]


def test_a_process_that_is_killed_costs_its_parts(
    open_lab: partial[Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL to a worker: another pool reads its parts."""
    lab = open_lab("server")
    missing(lab, lab.settled(20))
    one = told(audit(lab))
    monkeypatch.setattr(deep, "_PART_ROWS", 7)
    made: list[deep._Executor] = []
    real, submitted = Deep._executor, deep._Executor.submit

    def executor(self: Deep) -> deep._Executor:
        made.append(real(self))
        return made[-1]

    def submit(self: deep._Executor, task: Elsewhere, part: Part) -> Future[Seen]:
        if len(made) == 1 and part.number == 3:
            for each in list(self.executor._processes.values()):  # type: ignore[attr-defined]
                os.kill(each.pid, signal.SIGKILL)
        return submitted(self, task, part)

    monkeypatch.setattr(Deep, "_executor", executor)
    monkeypatch.setattr(deep._Executor, "submit", submit)
    assert one == told(audit(lab, How(workers=2)))
    assert len(made) == 2


EMBEDDED = "an embedded vector store belongs to one process"
IN_PARTS = "keeps no state, because only a shared collection is read in parts"


@pytest.mark.parametrize(
    ("layout", "how", "more", "why"),
    [
        ("shared", How(workers=2), {}, EMBEDDED),
        ("shared", How(workers=2), {"verify": Verify(None)}, "because vectors are looked at"),
        ("per-persona", How(workers=2), {}, IN_PARTS),
        ("per-persona", How(state=Path("a")), {}, IN_PARTS),
        ("per-persona", How(points_per_s=9999), {}, None),
        ("shared", deep.ALONE, {"verify": Verify(None)}, None),
    ],
    ids=str,
)
def test_what_is_asked_for_in_vain_is_told(
    open_lab: partial[Lab], layout: str, how: How, more: dict[str, Any], why: str | None
) -> None:
    """One process reads all the same, and says so when it begins, and in its report."""
    lab = open_lab(layout=layout)
    lab.settled(5)
    notes: list[str] = []
    found = audit(lab, how, tell=lambda each: notes.append(each.what), **more)
    assert found.ok
    said, made = found.why_alone, Report.of(found)
    assert str(said).endswith(str(why))
    assert [said] * bool(why) == [each for each in notes if "this process reads alone" in each]
    assert said == made.scope["why_alone"]
    assert bool(why) == (said in list(made.scope_lines()))


def test_a_worker_that_finds_another_store_reads_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same URL is another store on another machine. Without a mark nobody could tell."""
    settled, found = lab.ltm.mark.in_store(here := instance(lab))
    assert settled
    settings = lab.settings.model_copy(update={"postgres_url": None})
    monkeypatch.setattr(parts, "_OPEN", {})
    task = Elsewhere(settings, None, KnownBy(here, found, settled))
    part = Part(0, None, None, b"")
    with pytest.raises(StoreUnreachable, match=rf"another vector store .* is none, .* {found}"):
        task(part)
    monkeypatch.setitem(parts._OPEN, (os.getpid(), str(settings.qdrant_url)), lab.vectors)
    assert task(part).points
    with pytest.raises(StoreUnreachable, match=r"has memsync .*, and the audit 0\.0;"):
        Elsewhere(settings, None, KnownBy(here, found, settled, "0.0"))(part)
    with pytest.raises(StoreUnreachable, match=rf"older copy .* {settled}, .* {settled + 1}\."):
        Elsewhere(settings, None, KnownBy(here, found, settled + 1))(part)

    lab.vectors.drop(META)
    monkeypatch.setattr(deep, "_is_embedded", lambda _: False)
    assert "shows no mark" in str(audit(lab, How(scheduler="tcp://127.0.0.1:1")).why_alone)


def instance(lab: Lab) -> UUID:
    """The id of the lab's database."""
    with lab.postgres.session() as session:
        return instance_id(session)


def test_a_scheduler_needs_its_package(
    open_lab: partial[Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the error names the extra."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    lab = open_lab("server")
    lab.settled(2)
    with pytest.raises(SettingsError, match="pip install 'distributed>="):
        audit(lab, How(scheduler="tcp://127.0.0.1:1"))


# ---------------------------------------------------------------------- after a crash


class Killed(BaseException):
    """The audit ends here, as by SIGKILL."""


def cut_short(lab: Lab, file: Path, parts: int) -> None:
    """Run an audit that ends when it has kept so many parts in the state file."""
    real, kept = AuditState.add, [0]

    def add(self: AuditState, seen: Seen) -> None:
        if kept[0] == parts:
            raise Killed
        kept[0] += 1
        real(self, seen)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AuditState, "add", add)
        with pytest.raises(Killed):
            audit(lab, How(state=file))


def test_an_audit_that_was_killed_is_gone_on_with(
    lab: Lab, whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the rest is read, the report says what was taken over, and the file goes."""
    file = tmp_path / "audit.state"
    cut_short(lab, file, 3)
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(file.read_bytes().splitlines()) == 1 + 3
    with file.open("ab") as torn:
        torn.write(b'{"part": 3, "poi')
    read: list[int] = []
    real = type(lab.ltm.fingerprints).look_at

    def look_at(self: Any, part: Part, took: Any) -> Seen:
        read.append(part.number)
        return real(self, part, took)

    monkeypatch.setattr(type(lab.ltm.fingerprints), "look_at", look_at)
    found = audit(lab, How(state=file))
    assert whole == told(found)
    assert list(range(3, 3 + len(read))) == read
    assert [each for each in found.left_out if "in 3 of 6 parts that a run begun at" in each]
    assert not file.exists()


def test_what_changed_in_the_history_meanwhile_moves_no_part(lab: Lab, tmp_path: Path) -> None:
    """The parts are those of the first run, so a new exchange falls into one of them."""
    file = tmp_path / "audit.state"
    cut_short(lab, file, 2)
    lab.say(10)
    lab.sync()
    assert told(audit(lab))["findings"] == told(audit(lab, How(state=file)))["findings"]


def test_a_store_that_was_made_anew_is_read_from_its_beginning(lab: Lab, tmp_path: Path) -> None:
    """It has the same name, and what was read is of the one before."""
    file = tmp_path / "audit.state"
    cut_short(lab, file, 2)
    lab.vectors.drop(META)
    with pytest.raises(InvalidInput, match=r"it is of .*, not of .*, no mark"):
        audit(lab, How(state=file))
    assert file.exists()


@pytest.mark.parametrize("how", ["restored", "another alias"])
def test_another_state_of_the_store_is_read_from_its_beginning(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A store restored from a snapshot, mark and all, or another collection behind the name."""
    file = tmp_path / "audit.state"
    snapshot = {each: list(scan(lab.vectors, each, vectors=True)) for each in (lab.home, META)}
    lab.say(2)
    lab.sync()
    cut_short(lab, file, 2)
    if how == "restored":
        for name, points in snapshot.items():
            lab.vectors.delete(name, [each.id for each in scan(lab.vectors, name)])
            lab.vectors.upsert(name, points)
    else:
        monkeypatch.setattr(type(lab.ltm), "aliases", lambda _: {lab.home: "another"})
    assert not audit(lab, How(state=file)).took_over


def test_an_incomplete_audit_keeps_its_state(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store does not answer at the third part: incomplete, and the next run reads the rest."""
    file = tmp_path / "audit.state"
    real, calls = type(lab.ltm.fingerprints).look_at, [0]

    def look_at(self: Any, part: Part, took: Any) -> Seen:
        calls[0] += 1
        if part.number == 2 and calls[0] < 4:
            raise StoreUnreachable("gone")
        return real(self, part, took)

    monkeypatch.setattr(type(lab.ltm.fingerprints), "look_at", look_at)
    found = audit(lab, How(state=file))
    assert not found.complete
    assert "gone" in str(found.not_checked)
    assert audit(lab, How(state=file)).complete
    assert not file.exists()


class _Elsewhere(Failing):
    """A store of which another collection cannot be read."""

    def held_back(self, collection: str) -> int:
        return int(collection == OLDER)


@pytest.mark.parametrize("is_killed", [False, True])
def test_the_state_stays_where_the_audit_comes_to_no_end(
    lab: Lab, tmp_path: Path, *, is_killed: bool
) -> None:
    """Every part is read, and then something else cannot be."""
    file = tmp_path / "audit.state"
    if is_killed:

        def losses(*_: object) -> None:
            raise Killed

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sys.modules["memsync.reconcile.audit"], "losses", losses)
            with pytest.raises(Killed):
                audit(lab, How(state=file))
    else:
        lab.vectors.create(OLDER, DIMS, {})
        plain, lab.ltm = lab.ltm, lab.with_store(_Elsewhere(lab.vectors))
        assert not audit(lab, How(state=file)).complete
        lab.ltm = plain
    assert file.exists()
    assert audit(lab, How(state=file)).complete
    assert not file.exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"my diary\n", "it is no state file"),
        (b"my diary", "it is no state file"),
        (b'{"memsync_audit": 9}\n', "it has the version 9, not 1"),
        (b'{"memsync_audit": 1, "subject": ["a"], "bounds": []}\n', "it is of a, not of"),
        (b'{"memsync_audit": 1, "subject": [1], "bounds": []}\n', "it is of 1, not of"),
        (b'{"memsync_audit": 1, "bounds": []}\n', "it is of nobody's stores, not of"),
    ],
    ids=["text", "no line", "version", "other stores", "no text", "half"],
)
def test_a_file_of_something_else_is_refused(
    lab: Lab, tmp_path: Path, content: bytes, why: str
) -> None:
    """And left as it is."""
    file = tmp_path / "audit.state"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=why):
        audit(lab, How(state=file))
    assert content == file.read_bytes()


def test_a_state_file_serves_one_audit(lab: Lab, tmp_path: Path) -> None:
    """A second one is told so."""
    import fcntl  # noqa: PLC0415

    file = tmp_path / "audit.state"
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreBusy, match="another audit uses the state file"):
            audit(lab, How(state=file))


def test_a_state_holds_nobodys_words(lab: Lab, tmp_path: Path) -> None:
    """Ids and numbers only."""
    file = tmp_path / "audit.state"
    cut_short(lab, file, 4)
    kept = [json.loads(each) for each in file.read_bytes().splitlines()]
    assert {"part", "points", "ids"} == set(kept[-1])
    words = {word for each in lab.said for word in _words(each)}
    assert not [word for word in words if word in file.read_text()]


def _words(each: Exchange) -> tuple[str, str]:
    return each.user_text, each.assistant_text


# ---------------------------------------------------------------------- slowly


def test_the_rate_is_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many points a second at most, in both ways of reading."""
    slept: list[float] = []
    monkeypatch.setattr("memsync.stores.ltm.parts.time.sleep", slept.append)
    now = [0.0]
    monkeypatch.setattr("memsync.stores.ltm.parts.time.monotonic", lambda: now[0])
    audit(lab, How(points_per_s=10))
    assert sum(slept) >= 0
    assert max(slept) >= len(lab.said) / 10 / 7


def test_a_pace_makes_up_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause of the store is no credit for a burst."""
    slept: list[float] = []
    now = [0.0]
    monkeypatch.setattr("memsync.stores.ltm.parts.time.sleep", slept.append)
    monkeypatch.setattr("memsync.stores.ltm.parts.time.monotonic", lambda: now[0])
    pace = Pace(100)
    pace.took(50)
    now[0] = 10.0
    pace.took(50)
    assert slept == [0.5, 0.5]


def test_a_state_of_yesterday_is_begun_anew(lab: Lab, tmp_path: Path) -> None:
    """What was read then says too little, and a nightly job must go on by itself."""
    file = tmp_path / "audit.state"
    cut_short(lab, file, 2)
    head, *rest = file.read_text().splitlines()
    old = json.dumps({**json.loads(head), "begun_at": "2026-01-01T00:00:00+00:00"})
    file.write_text("\n".join([old, *rest, ""]))
    found = audit(lab, How(state=file))
    assert (True, False, False) == (found.complete, found.took_over, file.exists())


def test_what_was_taken_over_is_not_called_clean(
    open_lab: partial[Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No code of a memory was looked for everywhere, and acknowledgements are not judged."""
    lab = open_lab()
    lab.settled(20)
    monkeypatch.setattr(deep, "_PART_ROWS", 7)
    file = tmp_path / "audit.state"
    cut_short(lab, file, 2)
    found = audit(lab, How(state=file))
    assert (True, True) == (found.ok, found.took_over)
    assert "MSC001" not in found.looked_for
    assert "parts that an earlier run read" in Report.of(found).verdict
    again = audit(lab, How(state=file))
    assert (False, "MSC001" in again.looked_for) == (again.took_over, True)


def test_where_parts_are_of_no_use_it_says_so(lab: Lab, tmp_path: Path) -> None:
    """Old collections stand, and the whole is read in the usual way: no state is kept."""
    lab.deploy(lab.said[-1])
    file = tmp_path / "audit.state"
    found = audit(lab, How(state=file))
    assert "keeps no state, because other collections" in (found.why_alone or "")
    assert not file.exists()
