"""Tests that no command shows a password or a key, whatever is wrong."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memsync.errors import MemsyncError
from memsync.stores.postgres import Postgres
from support.cli import NO_QDRANT, on, run

CANARY = "Canary7Xyzzy"


@pytest.mark.parametrize("json_option", [(), ("--json",)])
@pytest.mark.parametrize("command", [("migrate", "status"), ("check",), ("sync", "run")])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:{}@127.0.0.1:1/app",
        "postgresql://user:{}@nowhere.invalid/app",
        "postgresql://user:{}@127.0.0.1:port/app",
        "postgresql://user:{}@127.0.0.1:99999/app",
        "postgresql://user:{}@[::1/app",
        "postgresql://user:%zz{}@127.0.0.1:1/app",
        "postgresql://127.0.0.1:1/app?user=u&password={}",
        "postgresql://127.0.0.1:1/app?pasword={}",
        "postgresql://127.0.0.1:1/app?sslpassword={}&sslmode=nope",
        "postgresql://user:{}@127.0.0.1:1/app?connect_timeout=abc",
        "postgresql://user:a?{}@127.0.0.1:1/app",
        "postgresql://user:a#{}@127.0.0.1:1/app",
        "host=127.0.0.1 port=1 password={}",
        "mysql://user:{}@127.0.0.1/app",
        pytest.param("postgresql://user:a@{}@127.0.0.1:1/app"),
        pytest.param("postgresql://user:a/{}@127.0.0.1:1/app"),
    ],
)
def test_postgres_password_is_never_shown(
    url: str, command: tuple[str, ...], json_option: tuple[str, ...]
) -> None:
    """Whatever is wrong with the URL, its password stays out of both streams."""
    ran = on(url.format(CANARY), ":memory:", *command, *json_option)

    assert 0 != ran.status
    assert CANARY not in ran.out + ran.err


@pytest.mark.parametrize("json_option", [(), ("--json",)])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:{}@h/db",
        "postgresql://app:a {}@h/db",
        "https://{}@h:6333",
        "password={}",
        "host=h password='a {}' dbname=x",
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        ("check", "{}"),
        ("{}", "check"),
        ("help", "{}"),
        ("rules", "{}"),
        ("sql", "{}"),
        ("check", "--select", "{}"),
        ("check", "--persona", "{}"),
        ("check", "--report", "json={}/x"),
        ("--config", "{}", "check"),
        ("reconcile", "undo", "{}"),
        ("reconcile", "show", "{}"),
    ],
)
def test_a_url_where_none_belongs_is_shown_without_its_password(
    words: tuple[str, ...], url: str, json_option: tuple[str, ...]
) -> None:
    """As in `memsync check "$MEMSYNC_POSTGRES_URL"`, which psql would take."""
    given = [each.format(url.format(CANARY)) for each in words]
    ran = on("postgresql://127.0.0.1:1/app", ":memory:", *given, *json_option)

    assert 0 != ran.status
    assert CANARY not in ran.out + ran.err


def test_wrong_password_is_never_shown(database: str, postgres_cluster: Any) -> None:
    """A login that the server refuses does not show the password."""
    url = database.replace("postgresql://postgres@", f"postgresql://nobody_of_us:{CANARY}@")
    if url == database:
        pytest.skip(f"{postgres_cluster.url} names another role")

    ran = on(url, ":memory:", "migrate", "status")

    assert 2 == ran.status
    assert CANARY not in ran.out + ran.err


@pytest.mark.parametrize("json_option", [(), ("--json",)])
@pytest.mark.parametrize(
    "url",
    [
        NO_QDRANT,
        "http://nowhere.invalid:6333",
        f"http://user:{CANARY}@127.0.0.1:1",
        f"http://127.0.0.1:1?api_key={CANARY}",
        f"ftp://user:{CANARY}@127.0.0.1:1",
        f"http://user:{CANARY}@[::1",
        pytest.param(f"http://user:{CANARY}/x@127.0.0.1:1"),
    ],
)
def test_qdrant_secrets_are_never_shown(
    url: str, json_option: tuple[str, ...], app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the API key nor a password in the URL is shown."""
    monkeypatch.setenv("MEMSYNC_QDRANT_API_KEY", CANARY)
    ran = on(app, url, "check", *json_option)

    assert 0 != ran.status
    assert CANARY not in ran.out + ran.err


def test_key_that_no_header_carries_is_never_shown(
    app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key with a line break is refused, and the message does not show it."""
    monkeypatch.setenv("MEMSYNC_QDRANT_API_KEY", f"{CANARY}\n{CANARY}")
    ran = on(app, NO_QDRANT, "check")

    assert 2 == ran.status
    assert CANARY not in ran.out + ran.err


def test_secrets_in_files_are_never_shown(tmp_path: Path) -> None:
    """An error in a settings file is reported without quoting the file."""
    config = tmp_path / "memsync.toml"
    for text in (
        f'qdrant_api_key = "{CANARY}',
        f'qdrant_api_key = {{ x = "{CANARY}" }}',
        f'nope = "{CANARY}"\nqdrant_api_key = ["{CANARY}"]',
        f'postgres_url = "nope:{CANARY}"\nsettle_s = "{CANARY}"',
        f"qdrant_api_key = {CANARY}",
    ):
        config.write_text(text)
        for options in ((), ("--json",), ("--config", str(config))):
            ran = run("check", *options) if options != ("--config", str(config)) else None
            ran = ran or run(*options, "check")
            assert 2 == ran.status
            assert CANARY not in ran.out + ran.err


@settings(max_examples=60)
@given(
    around=st.tuples(st.text(max_size=6), st.text(max_size=6)),
    shape=st.sampled_from(
        [
            "postgresql://user:{}@127.0.0.1:1/app",
            "postgresql://user:{}@127.0.0.1:1/app?nope=1",
            "postgresql://user:{}@127.0.0.1:x/app",
            "postgresql://127.0.0.1:1/app?password={}",
            "postgres://127.0.0.1:1/?sslpassword={}&sslmode=nope",
            "postgresq://user:{}@127.0.0.1:1/app",
        ]
    ),
    json_option=st.sampled_from([(), ("--json",)]),
)
def test_encoded_password_is_never_shown(
    around: tuple[str, str], shape: str, json_option: tuple[str, ...]
) -> None:
    """Any password, percent-encoded as URLs require, stays hidden in every failure."""
    secret = quote(around[0] + CANARY + around[1], safe="", errors="replace")
    ran = on(shape.format(secret), ":memory:", "migrate", "status", *json_option)

    assert 0 != ran.status
    assert "" == ran.out
    assert CANARY not in ran.err


def test_errors_hold_no_password() -> None:
    """No error of the library shows the password: not its fields, nor its causes."""
    with pytest.raises(MemsyncError) as caught:
        Postgres.open(f"postgresql://user:{CANARY}@127.0.0.1:1/app")

    error: BaseException | None = caught.value
    assert CANARY not in repr(caught.value.fields)
    while error is not None:
        assert CANARY not in repr(error) + str(error)
        error = error.__cause__ or error.__context__
