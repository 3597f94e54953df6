"""The commands that `memsync migrate backup` prints for an embedded store, typed."""

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from support.cli import run


def test_an_embedded_store_is_restored_by_what_is_printed(reachable_dir: Path) -> None:
    """The server is started, another database is made of the dump, and the server is stopped."""
    folder = reachable_dir / "stores"
    config = str(reachable_dir / "memsync.toml")
    assert 0 == run("--config", config, "init", "--embedded", str(folder)).status
    dump = str(reachable_dir / "a.dump")
    told = run("--config", config, "migrate", "backup", "--out", dump, "--json").json()
    text = run("--config", config, "migrate", "backup", "--out", f"{dump}.2").out
    url = f"postgresql://postgres@/postgres_restored?host={folder / 'postgres'}"

    assert all(f"\n  {told[name]}\n" in text for name in ("start", "stop"))
    try:
        for command in (told["start"], *told["restore"]):
            subprocess.run(["/bin/sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
        with psycopg.connect(url) as client:
            assert (0,) == client.execute("SELECT count(*) FROM conversation_history").fetchone()
        assert "blocks_done" in piped(config, told)
    finally:
        subprocess.run(["/bin/sh", "-c", told["stop"]], check=True, stdout=subprocess.DEVNULL)
    assert 0 == run("--config", config, "migrate", "status").status


def piped(config: str, told: Mapping[str, Any]) -> str:
    """What psql prints of the script that `memsync sql` names as next, typed as it is printed."""
    *_, stop, start, then = run("--config", config, "sql").out.splitlines()
    assert (f"first: {told['start']}", f"  {told['stop']}") == (start, stop)
    script, _, psql = then.removeprefix("next: ").partition(" | ")
    text = run(*shlex.split(script)[1:]).out
    return subprocess.run(
        ["/bin/sh", "-c", psql], input=text, capture_output=True, text=True, check=True
    ).stdout
