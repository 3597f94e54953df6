"""What a caller's type checker says of the installed package: nothing, where the call is right."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from textwrap import dedent

import pytest

import memsync

APP = dedent('''
    """An app's use of memsync, as its own type checker reads it."""

    from uuid import UUID

    from memsync import (
        Audit, Memory, MemsyncError, Message, NewExchange, PartlyDone, Recollection, Settings,
        StoreUnreachable,
    )


    def opened() -> Memory:
        return Memory.open(Settings(postgres_url="postgresql://h/app", qdrant_url="http://h:6333"))


    def patient() -> Settings:
        return Settings(postgres_url="embedded:pg", qdrant_url="edge:q", pool_wait_s=2.5)


    def answer(memory: Memory, persona: UUID, question: str) -> str:
        found: list[Recollection] = memory.recall(question, persona_id=persona, limit=3)
        said = [each.user_text + each.assistant_text + each.text for each in found]
        window: list[Message] = memory.get_recent_history("c", persona, persona_id=persona)
        return "\\n".join([*said, *(each.content.upper() for each in window)])


    def remember(memory: Memory, exchange: NewExchange) -> str | None:
        try:
            memory.remember(exchange)
        except (PartlyDone, StoreUnreachable) as error:
            return error.message
        except MemsyncError as error:
            return str(error.fields)
        return None
''')
WRONG = dedent('''
    """An app's mistakes, which its type checker must find."""

    from memsync import Memory, Settings

    Settings(postgres_url="postgresql://h/app", colection="typo")
    Settings(pool_connections="four")


    def recall(memory: Memory) -> None:
        memory.recall("x")
''')


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter in whose site-packages memsync stands, without settings for a checker."""
    folder = tmp_path_factory.mktemp("caller")
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (site / "memsync").symlink_to(Path(memsync.__file__).parent)
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


def mypy(python: Path, code: str, folder: Path) -> str:
    """What mypy --strict says of a file of the caller's."""
    (folder / "app.py").write_text(code)
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file", "mypy.ini"),
            *("--python-executable", str(python), "--cache-dir", str(folder / "cache"), "app.py"),
        ],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.stdout + done.stderr


def test_an_app_is_right_under_mypy_strict(python: Path, tmp_path: Path) -> None:
    """Settings take some of their fields, and what recall returns is text; no plugin is needed."""
    assert "Success: no issues found in 1 source file\n" == mypy(python, APP, tmp_path)


def test_an_apps_mistakes_are_found(python: Path, tmp_path: Path) -> None:
    """A name that is no setting, a value of another type and a missing persona are errors."""
    said = mypy(python, WRONG, tmp_path)

    assert 'Unexpected keyword argument "colection"' in said
    assert 'Argument "pool_connections" to "Settings" has incompatible type "str"' in said
    assert 'Missing named argument "persona_id"' in said
    assert "Found 3 errors" in said, said
