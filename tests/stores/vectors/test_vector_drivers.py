"""Tests how the drivers of the vector store open, close and fail."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from qdrant_client import QdrantClient, models

from memsync.errors import (
    DimensionMismatch,
    InvalidInput,
    MemsyncError,
    SchemaMismatch,
    SettingsError,
    StoreBusy,
    StoreUnreachable,
)
from memsync.model.records import Point
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.vectors import open_vectors
from memsync.stores.vectors.points import batches, condition_batches
from memsync.stores.vectors.protocol import CollectionInfo, IndexKind, scan
from memsync.stores.vectors.qdrant import QdrantStore

INDEXES = {"persona_id": IndexKind.TENANT, "fp1": IndexKind.INTEGER}
TEXT = "Grüße, 世界 🌍 'single' \"double\" \\back"


def point(number: int, **payload: object) -> Point:
    """A point to write."""
    return Point(number, payload, (1.0, 0.0, 0.0))


def in_another_process(settings: Settings, code: str) -> str:
    """The output of `code`, which another process runs on `settings`."""
    imports = "from memsync.settings import Settings\nfrom memsync.stores.vectors import *\n"
    opened = f"settings = Settings(qdrant_url={settings.qdrant_url!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", imports + opened + code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip() or done.stderr


class TestLifetime:
    def test_close_twice(self, vector_settings: Settings) -> None:
        """Closing twice is no error; calling a closed store raises StoreUnreachable."""
        store = open_vectors(vector_settings)
        store.close()
        store.close()
        with pytest.raises(StoreUnreachable, match="closed"):
            store.collections()

    def test_kept(self, directory_settings: Settings) -> None:
        """Points, their vectors and the indexes are there after a close and an open."""
        name = "some name.with dots, é"
        with_vector = Point(uuid4(), {"text": TEXT}, (0.6, 0.8, 0.0))
        store = open_vectors(directory_settings)
        store.create(name, 3, INDEXES)
        store.upsert(name, [with_vector, point(1), point(2)])
        store.delete(name, [1])
        store.close()
        store = open_vectors(directory_settings)
        assert [name] == store.collections()
        assert CollectionInfo(3, "Cosine", INDEXES) == store.describe(name)
        two, kept = scan(store, name, vectors=True)
        assert (2, with_vector.id, {"text": TEXT}) == (two.id, kept.id, kept.payload)
        assert pytest.approx(with_vector.vector) == kept.vector
        store.drop(name)
        store.close()
        store = open_vectors(directory_settings)
        assert store.collections() == []
        store.close()

    @pytest.mark.parametrize("name", ["..", "../outside", ".hidden", "a/b", "%2E", "C:\\x*"])
    def test_names_stay_inside(self, tmp_path: Path, name: str) -> None:
        """The embedded engine keeps a collection of any name inside its own directory."""
        settings = Settings(qdrant_url=f"edge:{tmp_path / 'store'}")
        store = open_vectors(settings, create=True)
        store.create(name, 3, {})
        store.upsert(name, [point(1)])
        store.close()
        assert ["store"] == [each.name for each in tmp_path.iterdir()]
        store = open_vectors(settings)
        assert ([name], 1) == (store.collections(), store.count(name))
        store.drop(name)
        assert store.collections() == []
        store.close()

    def test_outlives_its_process(self, directory_settings: Settings) -> None:
        """A write that returned is kept even if the process dies without closing the store."""
        died = in_another_process(
            directory_settings,
            "import os; from memsync.model.records import Point\n"
            "store = open_vectors(settings); store.create('some', 3, {})\n"
            "store.upsert('some', [Point(n, {}, (1.0, 0.0, 0.0)) for n in range(300)])\n"
            "print('written', flush=True); os._exit(9)",
        )
        assert died == "written"
        store = open_vectors(directory_settings)
        assert store.count("some") == 300
        store.close()

    def test_one_process_at_a_time(self, directory_settings: Settings) -> None:
        """A second process is refused a directory that is open, in one line that names it."""
        code = (
            "try: open_vectors(settings)\n"
            "except Exception as error: print(type(error).__name__, error)\n"
            "else: print('opened')"
        )
        store = open_vectors(directory_settings)
        refused = in_another_process(directory_settings, code)
        store.close()
        assert refused.startswith(StoreBusy.__name__)
        assert directory_settings.named("qdrant_url")[0].partition(":")[2] in refused
        assert refused.count("\n") == 0
        assert in_another_process(directory_settings, code) == "opened"

    def test_no_half_collection(self, tmp_path: Path) -> None:
        """A collection that a crash left half made or half dropped is ignored, then removed."""
        left_over = tmp_path / ".passing-crashed" / "segments"
        left_over.mkdir(parents=True)
        store = open_vectors(Settings(qdrant_url=f"edge:{tmp_path}"))
        assert store.collections() == []
        store.create("some", 3, {})
        assert ["some"] == store.collections()
        assert not left_over.exists()
        store.close()

    @pytest.mark.parametrize("driver", ["local", "edge"])
    def test_unusable_directory(self, tmp_path: Path, driver: str) -> None:
        """A directory that cannot be made raises StoreUnreachable, and the message names it."""
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreUnreachable, match="file"):
            open_vectors(Settings(qdrant_url=f"{driver}:{tmp_path}/file/store"), create=True)

    def test_missing_directory_is_not_made(self, tmp_path: Path) -> None:
        """A directory that does not exist is an error that names it, and is made only if asked."""
        for driver in ("edge", "local"):
            settings = Settings(qdrant_url=f"{driver}:{tmp_path / driver / 'store'}")
            with pytest.raises(SettingsError, match=f"{driver}/store: the folder does not exist"):
                open_vectors(settings)
            assert not (tmp_path / driver).exists()
            open_vectors(settings, create=True).close()
            open_vectors(settings).close()

    def test_engine_not_installed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Without the embedded engine the error says how to install it."""
        monkeypatch.setitem(sys.modules, "qdrant_edge", None)
        monkeypatch.delitem(sys.modules, "memsync.stores.vectors.edge", raising=False)
        with pytest.raises(SettingsError, match="'qdrant-edge-py"):
            open_vectors(Settings(qdrant_url=f"edge:{tmp_path}"))


class TestUnreachable:
    @pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
    def test_nothing_listens(self, grpc: bool) -> None:
        """When no server listens, every call raises StoreUnreachable and shows no secret."""
        # Port 1 is privileged and belongs to no service in use; connecting to it is refused.
        settings = Settings.model_validate(
            {
                "qdrant_url": "http://user:hunter2@127.0.0.1:1",
                "qdrant_api_key": "sesame-opens",
                "qdrant_grpc": grpc,
            }
        )
        store = open_vectors(settings)
        for call in (
            store.collections,
            lambda: store.create("some", 3, {}),
            lambda: store.upsert("some", [point(1)]),
            lambda: store.upsert("some", [point(1)], only_absent=True),
            lambda: store.count("some"),
        ):
            with pytest.raises(StoreUnreachable, match="127") as caught:
                call()
            assert "sesame" not in str(caught.value)
            assert "hunter2" not in str(caught.value)
        store.close()

    def test_key_that_no_header_carries(self) -> None:
        """A key with a line break is refused: the message names the setting, not the key."""
        settings = Settings.model_validate(
            {"qdrant_url": "http://127.0.0.1:1", "qdrant_api_key": "sesame\nopens"}
        )
        with pytest.raises(MemsyncError, match="qdrant_api_key") as caught:
            open_vectors(settings)
        assert "sesame" not in str(caught.value)


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> QdrantStore:
    """A store whose server answers each request as `answer` says."""
    transport = httpx.MockTransport(answer)
    client = QdrantClient(
        url="http://127.0.0.1:1",
        transport=transport,
        check_compatibility=False,
        headers={"api-key": "sesame-opens"},
    )
    return QdrantStore(client, "Qdrant at a test")


LIMITS: dict[str, type[MemsyncError]] = {
    "Max points count limit of 100 reached!": StoreUnreachable,
    "Max vector storage size limit of 0.0009536743MB reached!": StoreUnreachable,
    "Can't create collection with name b. Max collections limit reached: 1": StoreUnreachable,
    "Condition size limit reached (10 > 5). Help: Reduce the size of your condition.": InvalidInput,
    'Limit exceeded 5 > 2 for "upsert limit". Help: Reduce the "upsert limit".': InvalidInput,
}
"""What a server says at a limit: there is no more room, or the request is too large."""


class TestAnswers:
    @pytest.mark.parametrize(
        ("response", "expected"),
        [
            (httpx.Response(401, text="Must provide an API key"), SettingsError),
            (httpx.Response(403, json={"status": {"error": "read only"}}), SettingsError),
            (httpx.Response(404, json={"status": {"error": "gone"}}), SchemaMismatch),
            (httpx.Response(400, json={"status": {"error": "bad"}}), InvalidInput),
            (
                httpx.Response(400, json={"status": {"error": "Index required but not found"}}),
                SchemaMismatch,
            ),
            (
                httpx.Response(
                    400, json={"status": {"error": "Wrong input: expected dim: 3, got 2"}}
                ),
                DimensionMismatch,
            ),
            *(
                (httpx.Response(400, json={"status": {"error": f"Bad request: {text}"}}), expected)
                for text, expected in LIMITS.items()
            ),
            (httpx.Response(429, headers={"Retry-After": "3"}), StoreUnreachable),
            (httpx.Response(429), StoreUnreachable),
            (httpx.Response(503, text="<html>"), StoreUnreachable),
            (httpx.Response(200, text="<html>"), StoreUnreachable),
        ],
    )
    def test_meaning(self, response: httpx.Response, expected: type[MemsyncError]) -> None:
        """Each bad answer, from Qdrant or another server, becomes one of memsync's errors."""
        store = answering(lambda _: response)
        with pytest.raises(expected) as caught:
            store.count("some")
        assert expected is type(caught.value)
        store.close()

    def test_a_rate_limit_is_named(self) -> None:
        """The server answers. It is asked too often."""
        said = "Rate limiting exceeded: Write rate limit exceeded: Retry after 1s"
        store = answering(lambda _: httpx.Response(429, json={"status": {"error": said}}))
        with pytest.raises(StoreUnreachable, match=f"no more requests for now: {said}"):
            store.count("some")
        store.close()

    @pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.ConnectTimeout, httpx.ReadError])
    def test_no_answer(self, error: type[httpx.TransportError]) -> None:
        """A server that does not answer raises StoreUnreachable, which names the cause."""

        def fail(_: httpx.Request) -> httpx.Response:
            raise error("")

        store = answering(fail)
        with pytest.raises(StoreUnreachable, match=error.__name__):
            store.count("some")
        store.close()

    @pytest.mark.parametrize("made_meanwhile", [False, True])
    def test_a_collection_that_is_not_there(self, made_meanwhile: bool) -> None:
        """The store's own word says so. One that was made since the first answer is described."""
        info = {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "config": {
                "params": {"vectors": {"size": 3, "distance": "Cosine"}},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
                "optimizer_config": {
                    "deleted_threshold": 0.2,
                    "vacuum_min_vector_number": 1000,
                    "default_segment_number": 0,
                    "flush_interval_sec": 5,
                },
            },
            "payload_schema": {},
        }
        asked: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request.url.path)
            if request.url.path.endswith("/exists"):
                return httpx.Response(200, json={"result": {"exists": made_meanwhile}})
            if len(asked) == 1:
                return httpx.Response(404, json={"status": {"error": "Not found"}})
            return httpx.Response(200, json={"result": info})

        store = answering(answer)
        found = store.describe("some")
        assert (3 if made_meanwhile else None) == (found and found.dims)
        assert "/collections/some/exists" == asked[1]
        store.close()

    def test_nothing_is_said_of_a_collection_by_others(self) -> None:
        """A proxy that knows no such path has not said that the collection does not stand."""
        store = answering(lambda _: httpx.Response(404, text="<html>"))
        with pytest.raises(MemsyncError):
            store.describe("some")
        store.close()

    def test_write_not_finished(self) -> None:
        """A write that the server only acknowledged is not reported as done."""
        answer = {"result": [{"operation_id": 1, "status": "acknowledged"}]}
        store = answering(lambda _: httpx.Response(200, json=answer))
        with pytest.raises(StoreUnreachable, match="did not finish"):
            store.upsert("some", [point(1)])
        store.close()

    @pytest.mark.parametrize(
        ("version", "sent"),
        [("1.18.3", ["upsert"]), ("1.17.0-dev", ["upsert"]), ("1.16.9", ["read"]), ("?", ["read"])],
    )
    def test_conditions_by_version(self, version: str, sent: list[str]) -> None:
        """Points are read first on servers before 1.17, because these ignore conditions."""
        seen = []

        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/":
                return httpx.Response(200, json={"title": "qdrant", "version": version})
            if not request.url.path.endswith("/batch"):
                seen.append("read")
                return httpx.Response(200, json={"result": [{"id": 1, "payload": {}}]})
            seen.append("upsert")
            return httpx.Response(200, json={"result": [{"status": "completed"}]})

        store = answering(answer)
        store.upsert("some", [point(1)], only_absent=True)
        store.close()
        assert sent == seen


def test_requests_are_bounded() -> None:
    """A batch holds at most 256 points and 8 MiB, unless one point alone is larger."""
    many = batches([point(each) for each in range(600)])
    assert [256, 256, 88] == [len(batch) for batch in many]
    heavy = batches([point(each, text="x" * 3 * 2**20) for each in range(5)])
    assert [2, 2, 1] == [len(batch) for batch in heavy]
    lone = batches([point(1), point(2, text="x" * 9 * 2**20), point(3)])
    assert [1, 1, 1] == [len(batch) for batch in lone]
    texts = condition_batches({each: {"text": "x" * 3 * 2**20, "n": 1} for each in range(5)})
    assert [2, 2, 1] == [len(batch) for batch in texts]


@pytest.mark.server
@pytest.mark.parametrize(
    ("threshold", "m", "payload_m", "why"),
    [
        (None, None, None, None),
        (0, None, None, "indexing_threshold 0"),
        (None, 0, None, "hnsw m 0"),
        (None, 0, 16, None),
    ],
)
def test_a_server_without_an_index_of_vectors(
    qdrant_server_url: str | None,
    threshold: int | None,
    m: int | None,
    payload_m: int | None,
    why: str | None,
) -> None:
    """A collection that is indexed for each tenant alone has an index, too."""
    name = f"unindexed-{uuid4()}"
    client = QdrantClient(qdrant_server_url, check_compatibility=False)
    client.create_collection(
        name,
        vectors_config=models.VectorParams(size=3, distance=models.Distance.COSINE),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=threshold),
        hnsw_config=models.HnswConfigDiff(m=m, payload_m=payload_m),
    )
    client.close()
    with closing(open_vectors(Settings(qdrant_url=qdrant_server_url))) as store:
        assert CollectionInfo(3, "Cosine", {}, why_unindexed=why) == store.describe(name)
        store.drop(name)


@pytest.mark.server
def test_points_that_a_server_holds_back(qdrant_server_url: str | None) -> None:
    """They are counted by nobody else, and no scan of memories is told for whole without them."""
    settings = Settings(qdrant_url=qdrant_server_url, collection=f"held-back-{uuid4()}")
    client = QdrantClient(qdrant_server_url, check_compatibility=False)
    client.create_collection(
        name := settings.collection,
        vectors_config=models.VectorParams(size=256, distance=models.Distance.COSINE),
        optimizers_config=models.OptimizersConfigDiff(
            prevent_unoptimized=True, indexing_threshold=1
        ),
    )
    with closing(open_vectors(settings)) as store:
        ltm, at = LongTermMemory(store, settings), 0
        assert (0, []) == (store.held_back(name), list(ltm.scan(name)))
        while not store.held_back(name):
            # Nobody waits for these writes, so they may be held back.
            numbers = range(at, at := at + 500)
            vectors = [[float(each + 1), 1.0] + [0.0] * 254 for each in numbers]
            client.upsert(name, models.Batch(ids=[*numbers], vectors=vectors), wait=False)
            assert at < 50_000
        with pytest.raises(StoreUnreachable, match=f"holds .* points of '{name}' back"):
            next(ltm.scan(name))
        store.drop(name)
    client.close()


@pytest.mark.server
def test_a_server_catches_up(qdrant_server_url: str | None) -> None:
    """Afterwards the writes that nobody waited for are done, and no other is."""
    name = f"behind-{uuid4()}"
    client = QdrantClient(qdrant_server_url, check_compatibility=False)
    with closing(open_vectors(Settings(qdrant_url=qdrant_server_url))) as store:
        store.create(name, 3, {})
        store.upsert(name, [point(9000, memsync_nothing=1)])
        for at in range(0, 6000, 1000):
            batch = models.Batch(ids=[*range(at, at + 1000)], vectors=[[1.0, 0.0, 0.0]] * 1000)
            client.upsert(name, batch, wait=False)
        store.catch_up(name)
        assert 6001 == store.count(name)
        assert {"memsync_nothing": 1} == store.retrieve(name, [9000])[0].payload
        store.drop(name)
    client.close()
