"""docs/relay.md is true: its example, its unit for systemd and its line for cron do their work."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psycopg
import pytest

from memsync import Memory, NewExchange, Settings
from memsync.cli.app import main
from support.lab import ADA, CHANNEL, A, migrated, own_database

__all__ = ["migrated", "own_database"]

PAGE = (Path(__file__).parents[1] / "docs" / "relay.md").read_text()
PROGRAM = "/opt/memsync/bin/memsync"
CONFIG = "/etc/memsync/memsync.toml"


def block(language: str) -> str:
    """The one code block of the language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def service() -> configparser.SectionProxy:
    """The section of the unit that says what is run, and how."""
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # systemd minds the case
    unit.read_string(block("ini"))
    return unit["Service"]


def verified(unit: str, folder: Path) -> str:
    """What systemd says of the unit; a program that exists stands in for memsync."""
    path = folder / "memsync-relay.service"
    path.write_text(unit.replace(PROGRAM, "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{done.returncode} {done.stdout}{done.stderr}".strip()


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze"
)


@needs_systemd
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """Systemd finds nothing to say of the unit, and would of a word that it does not know."""
    assert "0" == verified(block("ini"), tmp_path)
    assert "Restrat" in verified(block("ini").replace("Restart=", "Restrat="), tmp_path)


def test_the_unit_runs_what_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """The command of the unit can be typed; a setting that cannot be used is not tried again."""
    program, *words = shlex.split(service()["ExecStart"])

    assert PROGRAM == program
    assert ["--config", CONFIG] == words[:2]
    assert 0 == main([*words[2:], "--help"])
    assert "--follow" in capsys.readouterr().out
    assert ("on-failure", "2") == (
        service()["Restart"],
        service()["RestartPreventExitStatus"],
    )


def settings_file(folder: Path, url: str) -> Path:
    """A settings file with an embedded vector store and a model that loads at once."""
    path = folder / "memsync.toml"
    (folder / "qdrant").mkdir()
    path.write_text(
        f'postgres_url = "{url}"\nqdrant_url = "edge:{folder / "qdrant"}"\n'
        'embedder = "support.lab:embed"\nlayout = "shared"\n'
    )
    return path


def remember(url: str) -> None:
    """Queue an exchange."""
    settings = Settings.load(environ={}, postgres_url=url, drain="no")
    with Memory.open(settings) as memory:
        memory.remember(NewExchange(CHANNEL, ADA, A, "a question", "an answer"))


def test_the_line_for_cron_is_silent_when_all_is_well(own_database: str, tmp_path: Path) -> None:
    """The command drains the outbox and prints nothing; where it cannot, it says so once."""
    *times, user, command = block("cron").strip().split(maxsplit=6)
    assert (["*"] * 5, "memsync") == (times, user)
    config = settings_file(tmp_path, own_database)
    program = f"{shlex.quote(sys.executable)} -m memsync"
    typed = command.replace(PROGRAM, program).replace(CONFIG, str(config))
    typed = typed.replace("/tmp/memsync-relay.lock", str(tmp_path / "lock"))  # noqa: S108  replaced
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def run() -> tuple[int, str, str]:
        ran = subprocess.run(
            ["/bin/sh", "-c", typed],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return ran.returncode, ran.stdout, ran.stderr

    remember(own_database)
    assert (0, "", "") == run()
    with psycopg.connect(own_database, autocommit=True) as connection:
        assert (0,) == connection.execute("SELECT count(*) FROM memsync.outbox").fetchone()
        connection.execute(
            "INSERT INTO memsync.outbox (point_id, dead, last_error)"
            " VALUES (gen_random_uuid(), true, 'too long')"
        )
    status, out, err = run()
    assert (3, "") == (status, out)
    assert "1 are dead" in err


def test_the_example_runs(
    own_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example remembers, waits for the memory, and gets the result of a check."""
    settings_file(tmp_path, own_database)
    monkeypatch.chdir(tmp_path)
    exchange = NewExchange(CHANNEL, ADA, A, "a question", "an answer")
    names: dict[str, Any] = {"Memory": Memory, "exchange": exchange}

    exec(compile(textwrap.dedent(block("python")), "relay.md", "exec"), names)  # noqa: S102  the claim

    assert names["audit"].ok
    assert 1 == names["audit"].points_checked
