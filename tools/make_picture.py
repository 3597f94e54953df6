"""Draws `docs/check.svg`, what `memsync check` prints: `python tools/make_picture.py [--check]`.

It makes the app of the demo on stores of its own, at a fixed time, and runs the command as one
would. `--check` writes nothing, and exits with 1 when the picture is stale.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from generated import keep
from memsync import Settings, migrate
from memsync.cli.app import main as run
from memsync.demo import story
from memsync.demo.world import Recipe, load_points, load_rows, make_world
from memsync.stores.postgres import open_postgres
from memsync.stores.postgres.embedded import start_embedded
from memsync.stores.vectors import open_vectors

PICTURE = Path(__file__).parents[1] / "docs" / "check.svg"
_NOW = datetime(2025, 10, 26, 12, tzinfo=UTC)
_COLUMNS = 88
_COMMAND = ("check", "--limit", "3")
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""They would be fetched from a network; a monospaced font of the reader's does as well."""


def screen() -> str:
    """What the command prints on a terminal, with the codes of its colours."""
    with tempfile.TemporaryDirectory(prefix="memsync-picture-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root, another account runs the server
        (folder / "qdrant").mkdir()
        with start_embedded(folder / "postgres") as server:
            postgres_url, qdrant_url = server.conninfo, f"edge:{folder / 'qdrant'}"
            settings = Settings(postgres_url=postgres_url, qdrant_url=qdrant_url)
            _make_app(settings)
            os.environ.update(FORCE_COLOR="1", COLUMNS=str(_COLUMNS))
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
                run(["--postgres-url", postgres_url, "--qdrant-url", qdrant_url, *_COMMAND])
    return f"$ memsync {' '.join(_COMMAND)}\n{out.getvalue()}"


def _make_app(settings: Settings) -> None:
    """Make the app of the demo, and migrate it."""
    # A default persona that memsync makes would have another id each time.
    world = make_world(Recipe(now=_NOW, faults=story.FAULTS, unresolved_share=0))
    with (
        open_postgres(settings) as postgres,
        contextlib.closing(open_vectors(settings)) as vectors,
    ):
        with postgres.session() as session:
            load_rows(world, session)
        load_points(world, vectors, _embed)
        options = migrate.RunOptions(quiet_minutes=0, backup_confirmed="none is needed")
        migrate.run(postgres, settings, options, memories=lambda: vectors)


def _embed(texts: Sequence[str]) -> list[tuple[float, ...]]:
    return [(1.0 + len(text) % 7, 2.0, 3.0, 4.0) for text in texts]


def drawn(text: str) -> str:
    """The screen as SVG."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text), end="")
    svg = console.export_svg(title="memsync", unique_id="memsync")
    return _FONTS.sub("", svg)


def main() -> int:
    """Draw the picture, or say that it is stale."""
    return keep(PICTURE, drawn(screen()), "docs")


if __name__ == "__main__":
    sys.exit(main())
