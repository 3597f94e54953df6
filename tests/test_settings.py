"""Settings: which source wins, what is refused, and that no error repeats a value."""

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memsync.errors import SettingsError
from memsync.model.secrets import redacted
from memsync.settings import Settings, data_dir

CANARY = "Canary7Xyzzy"


def load(config: Path | None = None, /, **arguments: Any) -> Settings:
    """Load settings with an empty environment."""
    return Settings.load(config, environ={}, **arguments)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, so that there is no memsync.toml but the test's own."""
    monkeypatch.chdir(tmp_path)


def toml(text: str, name: str = "memsync.toml") -> Path:
    """Write a settings file into the working folder."""
    path = Path(name)
    path.write_text(text)
    return path


# ------------------------------------------------------------------ precedence


def test_each_source_hides_the_next() -> None:
    """Arguments come before the environment, that before the file, that before the defaults."""
    toml('collection = "of-file"\nsettle_s = 1\nbatch_target_ms = 2')
    environ = {"MEMSYNC_COLLECTION": "of-environment", "MEMSYNC_SETTLE_S": "3"}

    found = Settings.load(environ=environ, collection="of-argument")

    assert ("of-argument", 3.0, 2) == (found.collection, found.settle_s, found.batch_target_ms)
    assert "snake" == found.payload_style


def test_none_is_not_given() -> None:
    """An argument of None does not hide the value of another source."""
    found = Settings.load(environ={"MEMSYNC_COLLECTION": "kept"}, collection=None)

    assert "kept" == found.collection


def test_empty_variable_is_not_set() -> None:
    """An empty variable leaves the file's value, as in libpq."""
    toml('collection = "of-file"')

    assert "of-file" == Settings.load(environ={"MEMSYNC_COLLECTION": ""}).collection


def test_named_file_hides_the_default_file() -> None:
    """--config replaces memsync.toml, it does not add to it."""
    toml("settle_s = 1")
    named = toml('collection = "named"', "other.toml")

    assert ("named", 60.0) == ((found := load(named)).collection, found.settle_s)


def test_variables_of_others_are_passed_over() -> None:
    """Variables without our prefix are ignored, and so are the tests' own, MEMSYNC_TEST_."""
    Settings.load(environ={"MEMSYNC_TEST_SEED": "1", "PGHOST": "x", "MEMSYNCH_COLLECTION": "y"})


# ------------------------------------------------------------------ stores


def test_no_store_has_a_default() -> None:
    """A store that no setting names is an error that names each way to set it, for each store."""
    assert (None, None) == (load().postgres_url, load().qdrant_url)
    with pytest.raises(SettingsError) as caught:
        load().named("postgres_url", "qdrant_url")

    for way in (
        *("--postgres-url", "MEMSYNC_POSTGRES_URL", "postgres_url in memsync.toml"),
        *("--qdrant-url", "MEMSYNC_QDRANT_URL", "qdrant_url in memsync.toml"),
        "memsync init --embedded",
    ):
        assert way in caught.value.message
    with pytest.raises(SettingsError) as caught:
        load(qdrant_url=":memory:").named("postgres_url", "qdrant_url")
    assert "qdrant_url" not in caught.value.message
    assert (":memory:",) == load(qdrant_url=":memory:").named("qdrant_url")


@pytest.mark.parametrize(
    ("name", "url", "meant"),
    [
        ("postgres_url", "embedded:data/pg", "embedded:{}/data/pg"),
        ("qdrant_url", "edge:points", "edge:{}/points"),
        ("qdrant_url", " local:../points", "local:{}/../points"),
        ("qdrant_url", "edge:/srv/points", "edge:/srv/points"),
        ("qdrant_url", ":memory:", ":memory:"),
        ("postgres_url", "postgresql://host/db", "postgresql://host/db"),
    ],
)
def test_folders_in_a_file_are_meant_from_the_file_on(
    name: str, url: str, meant: str, tmp_path: Path
) -> None:
    """A relative folder in the file is the file's neighbour, whatever the working directory is."""
    (tmp_path / "kept").mkdir()
    file = toml(f'{name} = "{url}"', "kept/memsync.toml")

    assert meant.format(tmp_path / "kept") == getattr(load(file), name)
    assert url.strip() == getattr(load(**{name: url}), name)


def test_home_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tilde in the file is the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    toml('qdrant_url = "edge:~/points"')

    assert f"edge:{tmp_path}/home/points" == load().qdrant_url


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has a rule of its own")
def test_data_goes_where_xdg_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embedded stores have their place in XDG_DATA_HOME, for root too; else root's is outside of
    its home, which no other account may enter.
    """
    monkeypatch.setenv("HOME", "/home/someone")
    for uid, xdg, place in (
        (1000, None, "/home/someone/.local/share/memsync"),
        (1000, "/srv/data", "/srv/data/memsync"),
        (0, None, "/var/lib/memsync"),
        (0, "", "/var/lib/memsync"),
        (0, "/srv/data", "/srv/data/memsync"),
    ):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        monkeypatch.delenv("XDG_DATA_HOME", raising=False)
        if xdg is not None:
            monkeypatch.setenv("XDG_DATA_HOME", xdg)
        assert Path(place) == data_dir()


# ------------------------------------------------------------------ refusals


def test_every_bad_field_is_reported_at_once() -> None:
    """One error names every bad field, whatever source it came from."""
    toml("settle_s = -1\nnot_a_setting = 1")
    environ = {"MEMSYNC_LOCK_TIMEOUT_MS": "soon", "MEMSYNC_POSTGRES_URLS": "x"}

    with pytest.raises(SettingsError) as caught:
        Settings.load(environ=environ, payload_style="kebab", qdrant_url="nowhere")

    for name in (
        *("settle_s", "not_a_setting", "lock_timeout_ms", "postgres_urls"),
        *("payload_style", "qdrant_url"),
    ):
        assert name in caught.value.message
    assert 6 == len(caught.value.fields["problems"])  # type: ignore[arg-type]  # a list of lines


@pytest.mark.parametrize(
    ("source", "place"),
    [
        *(("file", " in memsync.toml"), ("environment", " in MEMSYNC_COLECTION")),
        ("argument", ""),
    ],
)
def test_unknown_name_is_an_error(source: str, place: str) -> None:
    """An unknown name is refused; the error says where it stands, and the name that was meant."""
    if source == "file":
        toml("colection = 'x'")
    environ = {"MEMSYNC_COLECTION": "x"} if source == "environment" else {}
    arguments: dict[str, Any] = {"colection": "x"} if source == "argument" else {}

    with pytest.raises(SettingsError) as refused:
        Settings.load(environ=environ, **arguments)
    assert [f"colection{place}: is no setting; did you mean collection?"] == refused.value.fields[
        "problems"
    ]


def test_a_bad_value_is_told_with_the_place_that_counts() -> None:
    """Of several sources the one is named whose value is in force, and never the value."""
    file = toml(f'layout = "{CANARY}"\nwriter = "{CANARY}"\ndrain = "{CANARY}"', "named.toml")
    environ = {"MEMSYNC_LAYOUT": CANARY, "MEMSYNC_WRITER": CANARY}

    with pytest.raises(SettingsError) as refused:
        Settings.load(file, environ=environ, writer=CANARY)
    places = {line.partition(": ")[0] for line in refused.value.message.splitlines()[1:]}
    assert {"  layout in MEMSYNC_LAYOUT", "  writer", "  drain in named.toml"} == places
    assert CANARY not in refused.value.message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("colection", "did you mean collection?"),
        ("postgres", "did you mean postgres_url?"),
        ("qdrant_uri", "did you mean qdrant_url?"),
        ("timeout", "did you mean statement_timeout_s or qdrant_timeout_s or lock_timeout_ms?"),
        ("pool", "did you mean pool_connections or pool_wait_s?"),
        ("days", "known are postgres_url, postgres_pooler, "),
    ],
)
def test_the_names_most_like_an_unknown_one_are_named(name: str, said: str) -> None:
    """A typo is answered with the name that was meant; only a name like no other with all."""
    with pytest.raises(SettingsError) as refused:
        Settings(**{name: 1})
    _, told = str(refused.value).split("; ")

    assert told.startswith(said)


def test_no_setting_is_refused_in_the_words_of_a_library() -> None:
    """Each setting says in one form what it must be, whatever is wrong with its value."""
    values = ("", "x", "x" * 201, "9" * 5000, 0, -1, 0.5, 10**9, float("nan"), True, None, [1])
    said = set()
    for name in Settings.model_fields:
        for value in values:
            try:
                Settings(**{name: value})
            except SettingsError as error:
                said |= {error.message.splitlines()[1].removeprefix(f"  {name}: ")}

    assert [] == [each for each in said if not each.startswith("must ")]
    assert {"must be 'snake' or 'camel'", "must be at most 1000", "must not be empty"} <= said


def test_unknown_variable_is_named_as_it_is_spelt() -> None:
    """The error names an unknown variable as the environment spells it."""
    with pytest.raises(SettingsError, match="MEMSYNC_COLECTION"):
        Settings.load(environ={"MEMSYNC_COLECTION": "x"})


def test_table_in_the_file_is_an_error() -> None:
    """A table is refused, because the keys stand at the top of the file."""
    toml('[memsync]\ncollection = "x"')

    with pytest.raises(SettingsError, match=r"memsync in memsync\.toml: is no setting"):
        load()


def test_file_that_cannot_be_read() -> None:
    """A missing file, a folder, bytes and nonsense are each refused by name."""
    Path("folder").mkdir()
    Path("bytes.toml").write_bytes(b'collection = "\xff"')
    toml("collection = ", "broken.toml")

    for name, why in (
        ("missing.toml", "cannot read missing.toml: No such file"),
        ("folder", "cannot read folder: Is a directory"),
        ("bytes.toml", "bytes.toml is not TOML: .*utf-8"),
        ("broken.toml", "broken.toml is not TOML: Invalid value"),
    ):
        with pytest.raises(SettingsError, match=why):
            load(Path(name))


BAD = [
    ("postgres_url", "mysql://host/db"),
    ("postgres_url", "embedded:"),
    ("postgres_url", ""),
    ("qdrant_url", "ftp://host"),
    ("qdrant_url", "edge:"),
    ("qdrant_url", "memory"),
    ("qdrant_grpc", "perhaps"),
    ("collection", ""),
    ("collection", "  "),
    ("collection", "x" * 201),
    ("payload_style", "kebab"),
    ("settle_s", "-0.1"),
    ("settle_s", "nan"),
    ("settle_s", "soon"),
    ("outbox_alarm_s", "0"),
    ("quarantine_days", "0"),
    ("quarantine_days", "1.5"),
    ("lock_timeout_ms", "0"),
    ("lock_timeout_ms", "10001"),
    ("lock_deadline_s", "0"),
    ("batch_target_ms", "10001"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_limits(name: str, value: str) -> None:
    """A value out of range or of another type is refused by its name, and no other is named."""
    with pytest.raises(SettingsError) as caught:
        load(**{name: value})

    assert 1 == len(caught.value.fields["problems"])  # type: ignore[arg-type]  # a list of lines
    assert f"  {name}: " in caught.value.message


@pytest.mark.parametrize("name", ["quarantine_days", "settle_s", "lock_timeout_ms"])
def test_true_is_no_number(name: str) -> None:
    """True is refused: `quarantine_days = true` must not mean one day."""
    toml(f"{name} = true")

    with pytest.raises(SettingsError, match=name):
        load()


@pytest.mark.parametrize(
    ("name", "value"),
    [("settle_s", "inf"), ("lock_deadline_s", "inf"), ("quarantine_days", "9" * 30)],
)
def test_numbers_that_no_store_can_count_to(name: str, value: str) -> None:
    """A number that cannot be a time is refused here, not by the database later."""
    with pytest.raises(SettingsError, match=name):
        load(**{name: value})


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("1", True), ("yes", True), ("false", False)]
)
def test_booleans_of_the_environment(text: str, *, expected: bool) -> None:
    """The usual spellings of a boolean are understood."""
    assert expected is Settings.load(environ={"MEMSYNC_QDRANT_GRPC": text}).qdrant_grpc


def test_values_of_the_environment_are_converted() -> None:
    """Text of the environment becomes numbers, and the file's integers become floats."""
    toml("settle_s = 5")
    found = Settings.load(
        environ={"MEMSYNC_QUARANTINE_DAYS": " 40 ", "MEMSYNC_LOCK_TIMEOUT_MS": "9"}
    )

    assert (5.0, 40, 9) == (found.settle_s, found.quarantine_days, found.lock_timeout_ms)


def test_settings_are_frozen() -> None:
    """Settings cannot be changed after they were checked."""
    found = load()

    with pytest.raises(pydantic.ValidationError):
        found.collection = "other"  # type: ignore[misc]  # that is the claim


# ------------------------------------------------------------------ secrets


def test_secrets_are_not_in_repr() -> None:
    """Neither repr nor str shows a URL or a key."""
    found = load(
        postgres_url=f"postgresql://user:{CANARY}@host/db",
        qdrant_url=f"http://user:{CANARY}@host",
        qdrant_api_key=CANARY,
    )

    assert CANARY not in repr(found) + str(found)
    assert CANARY not in repr(found.model_dump()["qdrant_api_key"])
    assert found.qdrant_api_key is not None
    assert CANARY == found.qdrant_api_key.get_secret_value()


@given(
    name=st.sampled_from(sorted(Settings.model_fields)),
    value=st.one_of(
        st.builds(lambda a, b: f"nope:{a}{CANARY}{b}", st.text(max_size=5), st.text(max_size=5)),
        st.just([CANARY]),
        st.just({CANARY: CANARY}),
        st.just(CANARY.encode()),
    ),
)
def test_bad_values_are_never_repeated(name: str, value: object) -> None:
    """No error repeats a value, because any field may hold a secret that was put there wrongly."""
    try:
        load(**{name: value})
    except SettingsError as error:
        seen = f"{error}{error!r}{error.fields!r}{error.__cause__!r}"
        assert CANARY not in seen


def test_constructor_does_not_repeat_the_password() -> None:
    """The error of `Settings(...)` does not repeat a password either."""
    with pytest.raises(ValueError, match="postgres_url") as caught:
        Settings(postgres_url=f"mysql://user:{CANARY}@host/db")

    assert CANARY not in str(caught.value)


def test_line_of_a_broken_file_is_not_repeated() -> None:
    """The error of a file that is not TOML does not repeat the broken line."""
    path = toml(f'qdrant_api_key = "{CANARY}')

    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(path.read_text())
    with pytest.raises(SettingsError) as caught:
        load()
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://user:{}@host:1/db", "postgresql://user@host:1/db"),
        ("postgresql://user:a@{}@host/db", "postgresql://user@host/db"),
        ("postgresql://user:a:{}@host/db", "postgresql://user@host/db"),
        ("postgresql://host/db?password={}", "postgresql://host/db"),
        ("http://host:6333?api_key={}#{}", "http://host:6333"),
        ("http://host:6333?api_key=x@{}", "http://…"),
        ("postgresql://user:a?{}@host/db", "postgresql://…"),
        ("edge:/a/folder", "edge:/a/folder"),
        (":memory:", ":memory:"),
        ("", ""),
    ],
)
def test_redacted(url: str, expected: str) -> None:
    """A redacted URL keeps user, host and path, and loses every secret."""
    assert expected == redacted(url.format(CANARY, CANARY))


@pytest.mark.parametrize("url", ["postgresql://u:a/{}@host/db", "http://u:{}@[::1"])
def test_redacted_withstands_what_is_no_url(url: str) -> None:
    """A password that was not percent-encoded is hidden, and nothing is raised."""
    assert CANARY not in redacted(url.format(CANARY))
