"""Benchmark: the audit by fingerprint and the deep audit, beside what they read at least.

It measures a shared collection that agrees with its history, then with a hundred differences of
five kinds, and then with one in every memory. Where a server answers, the deep audit is also made
by two processes, and by a Dask scheduler if one is named. The reference of the deep audit is the
same data read and thrown away: all points with their payloads, and all messages. The audit by
fingerprint is compared with the deep audit. In the app's own layout, where every audit is deep, it
is compared with that reading alone. Commands run in processes of their own, so that their memory
can be measured.
Usage: python bench/proof.py [--rows 100000] [--sizes N ...] [--layouts shared per-persona]
[--of-a-persona 100] [--stores edge server] [--scheduler ADDRESS] [--json FILE]
[--postgres-url URL].
The sizes are rows/20 and rows/2 exchanges; --rows 2000000 measures a million.

It fails (status 1) when an audit does not name exactly the planted differences, or when others
report something else than one process alone: then no figure counts.
"""

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import psycopg
from both_stores import EMBEDDER, OF_A_PERSONA, embed, make_memories
from commands import Ran, environ_of, ran
from figures import Figure, show, write_json
from legacy_rows import one, server

from memsync.model.ids import MessageId
from memsync.model.records import Exchange
from memsync.reconcile.locating import differing
from memsync.settings import Settings
from memsync.stores.history.exchanges import exchanges_by_anchor
from memsync.stores.history.owners import without_memory
from memsync.stores.ltm import Embedder, LongTermMemory
from memsync.stores.ltm.against_history import compare_with_history
from memsync.stores.ltm.fingerprints import LedgerPrints
from memsync.stores.postgres import Postgres
from memsync.stores.vectors import VectorStore, open_vectors, scan
from reconcile import LAYOUTS, STORES, Invalid, app_on, stores

_PLANTED = 100
_ROUNDS = 3
_IN_ALL_MAX = 100_000
"""All memories differ only up to this size: each is a finding, and their number is no new fact."""

_SAMPLE = "SELECT id FROM conversation_history WHERE role = 'assistant' ORDER BY id LIMIT %s"
_EDIT = "UPDATE conversation_history SET content = content || '!' WHERE id = %s"


@dataclass(frozen=True)
class Figures:
    """The figures of one store at one size."""

    store: str
    exchanges: int
    store_s: float
    history_s: float
    raw_s: float
    begun_s: float
    idle: Ran
    quick: Ran
    deep: Ran
    quick_planted: Ran
    read_share: float
    alone: Ran
    shared_out: Mapping[str, Ran]
    deep_all: Ran | None

    def all(self) -> Iterator[Figure]:
        """The figures, with the targets of a million exchanges."""
        method = f"{self.store}, {self.exchanges:,}"
        million = self.exchanges >= 1_000_000
        yield Figure(
            "T4", "ledger against Qdrant, s", method, self.store_s, None, 1 if million else None
        )
        yield Figure(
            "T4", "history against ledger, s", method, self.history_s, None, 5 if million else None
        )
        yield Figure(
            "T4", "audit by fingerprint over deep, s", method, self.quick.wall_s, self.deep.wall_s
        )
        yield Figure(
            "T4", "100 differences: s", method, self.quick_planted.wall_s, self.deep.wall_s
        )
        yield Figure(
            "T4",
            "100 differences: points read, share",
            method,
            self.read_share,
            None,
            0.05 if self.exchanges >= 100_000 else None,
        )
        yield Figure("T4", "by fingerprint, MiB", method, self.quick.peak_mib, self.idle.peak_mib)
        yield from of_deep(method, self.exchanges, self.raw_s, self.begun_s, self.idle, self.deep)
        if every := self.deep_all:
            own = self.deep.own_mib
            name = "deep, all differ"
            yield Figure("T5", f"{name}, peak MiB", method, every.peak_mib, self.deep.peak_mib)
            yield Figure("T5", f"{name}, MiB without mapped files", method, every.own_mib, own)
            yield Figure("T5", f"{name}, s", method, every.wall_s, self.deep.wall_s)
        for who, by in self.shared_out.items():
            cpu_s = by.cpu_s, self.alone.cpu_s
            yield Figure("T9", f"{who}, s on a CPU", method, *cpu_s, 1.15, limits_ratio=True)
            yield Figure("T9", f"{who}, s", method, by.wall_s, self.alone.wall_s)


def of_deep(
    method: str, exchanges: int, raw_s: float, begun_s: float, idle: Ran, deep: Ran
) -> Iterator[Figure]:
    """The figures of a deep audit where nothing differs."""
    # Raw reading begins in a process that runs already, with both stores open.
    rate, raw = exchanges / (deep.wall_s - begun_s), exchanges / raw_s
    yield Figure(
        "T5", "deep audit, points/s", method, rate, raw, 0.5, limits_ratio=True, at_least=True
    )
    yield Figure("T5", "deep audit, peak MiB", method, deep.peak_mib, idle.peak_mib)
    name = "deep audit, MiB without mapped files"
    yield Figure("T5", name, method, deep.own_mib, idle.own_mib)


def audited(settings: Settings, *how: str, expected: Mapping[str, int]) -> tuple[Ran, Any]:
    """Run the audit; refuse one that does not find exactly what is expected."""
    done = ran(["reconcile", "audit", "--json-lines", *how], environ_of(settings))
    said = json.loads(done.last or "{}")
    if dict(said.get("counts", {})) != dict(expected):
        raise Invalid(f"audit {' '.join(how)}: {said.get('counts')}, not {dict(expected)}")
    return done, said


def measured(settings: Settings, store: str, exchanges: int, scheduler: str | None) -> Figures:
    """Everything with one store at one size."""
    environ = environ_of(settings)
    _adopt(environ)
    raw_s, begun_s, idle, deep = _in_turn(settings)
    with closing(open_vectors(settings)) as vectors:
        store_s, history_s = _parts_s(settings, vectors)
    quick, said = audited(settings, "--by-fingerprint", expected={})
    if said["checked"]["by_fingerprint"] != exchanges:
        raise Invalid(f"not compared by fingerprint: {said['checked']}")
    with closing(open_vectors(settings)) as vectors:
        planted = _plant(settings, vectors)
    quick_planted, said = audited(settings, "--by-fingerprint", expected=planted)
    checked = said["checked"]
    share = (checked["points"] - checked["by_fingerprint"]) / checked["points"]
    alone, _ = audited(settings, "--deep", expected=planted)
    shared_out = dict(_shared_out(settings, alone, scheduler, planted)) if store == "server" else {}
    deep_all = None
    if exchanges <= _IN_ALL_MAX:
        deep_all = _all_differ(environ)
    return Figures(
        store,
        exchanges,
        store_s,
        history_s,
        raw_s,
        begun_s,
        idle,
        quick,
        deep,
        quick_planted,
        share,
        alone,
        shared_out,
        deep_all,
    )


def measured_in_place(settings: Settings, store: str, exchanges: int) -> Iterator[Figure]:
    """The deep audit of the app's own layout, which has no other."""
    method = f"{store}, per-persona, {exchanges:,}"
    yield from of_deep(method, exchanges, *_in_turn(settings))


def _in_turn(settings: Settings) -> tuple[float, float, Ran, Ran]:
    """The middle one of three: raw reading, a command that opens both stores and reads no memory,
    one that does nothing, the deep audit.
    """
    raw, begun, idle, deep = list[float](), list[float](), list[Ran](), list[Ran]()
    environ = environ_of(settings)
    for _ in range(_ROUNDS):
        with closing(open_vectors(settings)) as vectors:
            raw.append(_raw_s(settings, vectors))
        begun.append(ran(["reconcile", "layout"], environ).wall_s)
        idle.append(ran(["--version"], environ))
        deep.append(audited(settings, "--deep", expected={})[0])
    return median(raw), median(begun), _middle(idle), _middle(deep)


def _middle(some: Sequence[Ran]) -> Ran:
    return sorted(some, key=lambda each: each.wall_s)[len(some) // 2]


def _shared_out(
    settings: Settings, alone: Ran, scheduler: str | None, planted: Mapping[str, int]
) -> Iterator[tuple[str, Ran]]:
    """The deep audit by others, which must print what the one that was `alone` has printed."""
    by = {"2 workers": ("--workers", "2")}
    if scheduler:
        by["scheduler"] = ("--scheduler", scheduler)
    for name, how in by.items():
        done, said = audited(settings, "--deep", *how, expected=planted)
        if done.printed != alone.printed:
            raise Invalid(f"by {name} the report is another one: {said}")
        yield name, done


def _adopt(environ: Mapping[str, str]) -> None:
    done = ran(["reconcile", "adopt"], environ)
    if done.status:
        raise Invalid(f"adopt ended with {done.status}: {done.last}")
    with psycopg.connect(environ["MEMSYNC_POSTGRES_URL"], autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE memsync.memories")


def _raw_s(settings: Settings, vectors: VectorStore) -> float:
    """The seconds of reading all points and all messages, and throwing them away."""
    began = time.perf_counter()
    for name in vectors.collections():
        for _ in scan(vectors, name):
            pass
    columns = "id, channel_id, personality_id, persona_id, role, content, created_at"
    query = f"COPY (SELECT {columns} FROM conversation_history) TO STDOUT"
    with (
        psycopg.connect(settings.postgres_url or "", autocommit=True) as connection,
        connection.cursor().copy(query) as copy,
    ):
        for _ in copy:
            pass
    return time.perf_counter() - began


def _parts_s(settings: Settings, vectors: VectorStore) -> tuple[float, float]:
    """The seconds of comparing the ledger with the store, and the history with the ledger."""
    ltm = LongTermMemory(vectors, settings, Embedder(EMBEDDER, embed))
    with Postgres.open(settings.postgres_url or "") as postgres, postgres.session() as session:
        points = ltm.fingerprints
        points.count()  # opens the collection
        began = time.perf_counter()
        if differing(points, LedgerPrints(session, settings.collection), 10):
            raise Invalid("the histograms differ where nothing does")
        between = time.perf_counter()
        without = without_memory(session)
        found = compare_with_history(postgres, session, settings.collection, without, 10)
        if found.apart:
            raise Invalid(f"the history differs from the ledger where nothing does: {found}")
        return between - began, time.perf_counter() - between


def _plant(settings: Settings, vectors: VectorStore) -> dict[str, int]:
    """Plant the differences, in turn, in memories that are spread over all."""
    ltm = LongTermMemory(vectors, settings, Embedder(EMBEDDER, embed))
    planted: Counter[str] = Counter()
    url = settings.postgres_url or ""
    with (
        Postgres.open(url) as postgres,
        postgres.session() as session,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        ids = [row[0] for row in connection.execute(_SAMPLE, [_PLANTED])]
        said = list(exchanges_by_anchor(session, ids).values())
        for number, each in enumerate(said):
            kind = number % 5
            if kind == 0:
                vectors.delete(settings.collection, [each.anchor_id])
                planted["missing-point"] += 1
            elif kind == 1:
                connection.execute(_EDIT, [each.anchor_id])
                planted["stale-content"] += 1
            else:
                name, changed = _changed(kind, each, said)
                embedded = ltm.embedded(ltm.make(session, [changed]))
                points = [point for _, point in embedded.by_collection()[ltm.collection]]
                vectors.upsert(settings.collection, points)
                planted[name] += 1
    return dict(planted)


def _changed(kind: int, each: Exchange, others: Sequence[Exchange]) -> tuple[str, Exchange]:
    """A memory that is not of this exchange, with a digest of its own."""
    if kind == 2:
        return "stale-content", replace(each, assistant_text="something else")
    if kind == 3:
        other = next(o.persona_id for o in others if o.persona_id != each.persona_id)
        return "persona-mismatch", replace(each, persona_id=other)
    return "duplicate-point", replace(each, anchor_id=MessageId(uuid4()))


def _all_differ(environ: Mapping[str, str]) -> Ran:
    with psycopg.connect(environ["MEMSYNC_POSTGRES_URL"], autocommit=True) as connection:
        connection.execute("UPDATE conversation_history SET content = content || '?'")
        connection.execute("VACUUM ANALYZE conversation_history")
    done = ran(["reconcile", "audit", "--json-lines", "--deep"], environ)
    found = sum(json.loads(done.last or "{}").get("counts", {}).values())
    rows = one(
        environ["MEMSYNC_POSTGRES_URL"],
        "SELECT count(*) FROM conversation_history WHERE role = 'assistant'",
    )[0]
    if found < rows:
        raise Invalid(f"all of {rows} differ, and {found} were found")
    return done


def series(
    given: argparse.Namespace, postgres_url: str, urls: Mapping[str, str]
) -> Iterator[list[Figure]]:
    """Every size in each layout on each store."""
    for exchanges in given.sizes:
        for layout in given.layouts:
            for store, url in urls.items():
                with app_on(postgres_url, url, layout, exchanges, given.of_a_persona) as settings:
                    make_memories(settings, 0)
                    if layout == "shared":
                        found = measured(settings, store, exchanges, given.scheduler).all()
                    else:
                        found = measured_in_place(settings, store, exchanges)
                    yield [*found]


def main() -> int:
    """Measure, print the figures, write them if asked. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="messages; see above")
    parser.add_argument("--sizes", type=int, nargs="+", help="exchanges, instead of --rows")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument(
        "--of-a-persona", type=int, default=OF_A_PERSONA, help="exchanges of each persona"
    )
    parser.add_argument("--scheduler", help="the address of a Dask scheduler, to measure it too")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--postgres-url", help="a server to make databases on")
    given = parser.parse_args()
    given.sizes = given.sizes or [given.rows // 20, given.rows // 2]
    # SIGTERM acts like Ctrl-C, so that servers which were started are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    figures: list[Figure] = []
    try:
        with server(given.postgres_url) as postgres_url, stores(given.stores) as urls:
            if "server" not in urls:
                print("T9, parts by several processes, is not measured: it needs a server")
            for some in series(given, postgres_url, urls):
                figures += some
                show(f"proof: {some[0].method} exchanges", some)
    except Invalid as error:
        print(f"the measurement is wrong: {error}", file=sys.stderr)
        return 1
    if given.json:
        write_json(given.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
