"""Runs the traffic: takes its steps, and lets audits look at any moment, between two reads too."""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pytest

from memsync import reconcile
from memsync.memory import relay
from memsync.model.records import Place
from memsync.reconcile.adopt import WHOLE, Part
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Session
from memsync.stores.vectors import open_vectors
from memsync.stores.vectors.protocol import Page
from support.failing import Failing
from support.releasing import released
from support.traffic.actors import ACTORS, Actor, Steps, relaying
from support.traffic.planting import plant
from support.traffic.town import SETTLE_MS, THREADS, Fault, Kind, Town

if TYPE_CHECKING:
    from memsync.reconcile.findings import Audit, Finding

ACTIVE, NEW_SHARE = 7, 0.3
PAGE_POINTS = 9
DEPTH_MAX = 3


class _InPages(Failing):
    """A store that acts before each call, and whose pages are small, so that it acts often."""

    def scroll(self, collection: str, **asked: Any) -> Page:
        return super().scroll(collection, **{**asked, "limit": min(PAGE_POINTS, asked["limit"])})


@dataclass
class Traffic:
    """The traffic in a town. It goes on as `often` before each read; `trace` is what was done."""

    town: Town
    often: float = 0.1
    trace: list[str] = field(default_factory=list)
    looks: int = 0
    planted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._active: list[tuple[str, Steps]] = []
        self._at_work: set[int] = set()
        self._depth = 0
        self._goes_on = False
        self._is_locked = False

    @property
    def rng(self) -> random.Random:
        """Where every choice comes from."""
        return self.town.rng

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give memsync this town's clock, one thread, and the steps of others between its reads."""
        clock = self.town.clock
        # The package's functions bear the names of its modules.
        way, adopt = (sys.modules[f"memsync.reconcile.{name}"] for name in ("on_its_way", "adopt"))
        monkeypatch.setattr(way, "time", clock)
        monkeypatch.setattr(way, "now_ms", clock.now_ms)
        monkeypatch.setattr(adopt, "now_ms", clock.now_ms)
        for module in ("reconcile.locating", "stores.ltm.against_history"):
            monkeypatch.setattr(f"memsync.{module}.ThreadPoolExecutor", self._executor)
        real, main = Session._execute, threading.get_ident()

        def execute(session: Session, text: str, params: dict[str, Any]) -> Any:
            if threading.get_ident() == main:
                self._meanwhile("a statement")
            return real(session, text, params)

        monkeypatch.setattr(Session, "_execute", execute)

    def begin(self, number: int = 3) -> None:
        """Give each thread a past of so many exchanges. The app has written it, or the relay."""
        town = self.town
        for told in (town.next_of(each) for each in THREADS for _ in range(number)):
            town.insert(told, "user", "assistant")
            if town.kind is Kind.SHARED:
                anchor = told.row.anchor_id
                town.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(id)s)", id=anchor)
                told.place = Place(town.lab.home, anchor)
            else:
                town.write_point(told)
            told.is_open = False
        self.drain()
        town.clock.pass_by(10 * SETTLE_MS)

    # ------------------------------------------------------------------ steps

    def step(self) -> None:
        """Let somebody do one step."""
        self.town.clock.pass_by(self.rng.randint(0, 8000))
        ready = [each for each in self._active if id(each[1]) not in self._at_work]
        if not self.town.is_over and (len(self._active) < ACTIVE or self.rng.random() < NEW_SHARE):
            ready = [self._somebody()]
        if not ready:
            return
        name, steps = one = self.rng.choice(ready)
        self.trace.append(name)
        self._at_work.add(id(steps))
        try:
            with self._going_on(on=False):
                next(steps)
        except StopIteration:
            self._active.remove(one)
        finally:
            self._at_work.discard(id(steps))

    def _somebody(self) -> tuple[str, Steps]:
        actors = ACTORS[self.town.kind]
        [actor] = self.rng.choices([*actors], [*actors.values()])
        return self._begun(actor)

    def _begun(self, actor: Actor) -> tuple[str, Steps]:
        one = (actor.__name__, actor(self))
        self._active.append(one)
        return one

    def finish(self) -> None:
        """Let everybody come to an end, and time pass until everything is settled."""
        town = self.town
        town.is_over, town.relay_rests_until_ms = True, 0
        for _ in range(2000):
            if not self._active:
                break
            if town.kind is not Kind.APP and not self._at_work and self.rng.random() < 0.2:
                self._begun(relaying)
            self.step()
        assert not self._active, self._active
        self.drain()
        town.clock.pass_by(3 * SETTLE_MS)

    def close(self) -> None:
        """End what is under way, so that no transaction of the app's stays open."""
        for _, steps in self._active:
            steps.close()

    # ------------------------------------------------------------------ what memsync does

    @contextmanager
    def _going_on(self, *, on: bool) -> Iterator[None]:
        before, self._goes_on = self._goes_on, on
        try:
            yield
        finally:
            self._goes_on = before

    @contextmanager
    def _reading(self) -> Iterator[LongTermMemory]:
        """The store, between whose calls the traffic goes on."""
        self._depth += 1
        try:
            with self._going_on(on=True):
                yield self.town.lab.with_store(
                    _InPages(self.town.lab.vectors, meanwhile=self._meanwhile)
                )
        finally:
            self._depth -= 1

    def _meanwhile(self, _: str) -> None:
        if not self._goes_on or self._depth > DEPTH_MAX:
            return
        with self._going_on(on=False):
            while self.rng.random() < self.often:
                self.step()
            if self._depth < DEPTH_MAX - 1 and self.rng.random() < self.often / 50:
                self.look()

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Whether nobody else writes for memsync at this moment; and keep others out."""
        if self._is_locked:
            yield False
            return
        self._is_locked = True
        try:
            with released(self.town.lab.url):
                yield True
        finally:
            self._is_locked = False

    @property
    def is_locked(self) -> bool:
        """Whether a relay or an operator is at work."""
        return self._is_locked

    def drain(self) -> bool:
        """Drain the outbox, unless somebody is at work."""
        with self._locked() as is_free:
            if is_free:
                with self._reading() as ltm:
                    relay.drain(self.town.lab.postgres, ltm)
        return is_free

    def adopt(self, *, part: Part = WHOLE, anew: bool = False) -> bool:
        """Adopt what stands, unless somebody is at work."""
        lab = self.town.lab
        with self._locked() as is_free:
            if is_free:
                with self._reading() as ltm:
                    reconcile.adopt(lab.postgres, ltm, lab.settings, part=part, anew=anew)
        return is_free

    def reopen(self) -> None:
        """Close the vector store and open it again, unless somebody reads."""
        lab = self.town.lab
        if self._depth == 0:
            lab.vectors.close()
            lab.vectors = open_vectors(lab.settings)
            lab.ltm = lab.with_store(lab.vectors)

    def _executor(self, _: int) -> _Beside:
        return _Beside(self.rng)

    # ------------------------------------------------------------------ looking

    def plant(self) -> None:
        """Let an adversary spoil something, as far as there is anything to spoil."""
        if fault := plant(self.town):
            self.planted[fault.name] += 1
            self.trace.append(f"PLANTED {fault.name}")

    @property
    def ways(self) -> tuple[bool | None, ...]:
        """How audits may look here: as usual, deep, by fingerprint."""
        return (None, True, False) if self.town.kind is Kind.SHARED else (None,)

    def look(self, *ways: bool | None) -> Audit:
        """Audit: nothing is found that is not wrong, and what is wrong is found by now."""
        town, lab = self.town, self.town.lab
        deep = self.rng.choice(ways or self.ways)
        run = self.rng.choice((reconcile.audit, reconcile.check))
        earliest, accepted = town.clock.earliest_ms, len(town.accepted)
        waiting = [
            each
            for each in town.faults
            if each.must_be_found and not each.found and each.due_ms <= earliest
            if deep is not False or not each.needs_deep
        ]
        self.trace.append(f"LOOK {deep}")
        with self._reading() as ltm:
            audit = run(lab.postgres, ltm, lab.settings, deep=deep)
        self.looks += 1
        self.trace.append("SEEN")
        assert () == audit.not_checked
        for each in audit.faults:
            # What an operator has accepted meanwhile may have been seen before.
            self._explain(each, [*town.faults, *town.accepted[accepted:]])
        for fault in waiting:
            if fault.must_be_found and not fault.found:
                fault.looks += 1
                assert fault.looks < 2, self._told(f"not found by two audits: {fault}")
        return audit

    def _told(self, what: str) -> str:
        """What a failure says: all that is needed to see how it came."""
        told = sorted(self.town.told, key=lambda each: (*each.thread, each.row.created_at_ms))
        lines = [what, " ".join(self.trace[-80:]), *map(str, told)]
        return "\n".join(lines)

    def _explain(self, finding: Finding, faults: list[Fault]) -> None:
        now_ms = self.town.clock.earliest_ms
        found = [each for each in faults if each.explains(finding, now_ms)]
        excused = found or self.town.may_be_of_before_an_edit(finding)
        assert excused, self._told(f"a false finding at {now_ms}: {finding}")
        for each in found:
            each.found |= finding.name in each.codes


@dataclass
class _Beside:
    """Instead of a thread: what it is given is done at once, or when it is asked for."""

    rng: random.Random

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *given: Any, **named: Any) -> _Later:
        """The work."""
        later = _Later(lambda: work(*given, **named))
        if self.rng.random() < 0.5:
            later.result()
        return later


class _Later:
    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._done: list[Any] = []

    def result(self) -> Any:
        """What the work gave."""
        if not self._done:
            self._done.append(self._work())
        return self._done[0]
