"""`memsync demo`: the story, told on stores of its own."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from memsync import demo as story
from memsync import legacy
from memsync.cli.common import Options, opened_stores, print_facts, progress, projector

_DIRECTORY_MODE = 0o755


def demo(
    ctx: typer.Context,
    dialogues: Annotated[
        Path | None, typer.Option(help="Talk in these dialogues (jsonl.gz) instead of small talk.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another world.")] = 1,
) -> int:
    """Build a legacy app with known faults, migrate, reconcile, check, recall; say each step."""
    started = time.monotonic()
    source = tuple(legacy.read_dialogues(dialogues)) if dialogues else ()
    recipe = legacy.Recipe(
        seed=seed,
        now=datetime.now(UTC),
        source=source,
        users=max(24, len(source) // 25),
        faults=story.FAULTS,
    )
    failed: list[str] = []
    with (
        _stores_of_its_own(ctx),
        opened_stores(ctx) as (settings, postgres, vectors),
        progress() as tell,
    ):
        stage = story.Stage(postgres, vectors, projector(settings, vectors), settings, tell)
        for number, scene in enumerate(story.play(stage, recipe), start=1):
            _print(number, scene)
            failed += [f"{scene.title}: {each}" for each in scene.failed]
    for each in failed:
        typer.echo(f"FAILED {each}", err=True)
    if not failed:
        typer.echo(f"\nEverything came true in {time.monotonic() - started:.0f} s.")
    return 1 if failed else 0


def _print(number: int, scene: story.Scene) -> None:
    typer.echo(f"\n{number}. {scene.title}")
    if scene.command:
        typer.echo(f"   $ {scene.command}")
    print_facts(scene.facts)
    for each in scene.failed:
        typer.echo(f"   FAILED {each}")


@contextlib.contextmanager
def _stores_of_its_own(ctx: typer.Context) -> Iterator[None]:
    """Point the options at a temporary folder, which is removed afterwards.

    The story writes a whole app: it must never find anybody's stores. The folder is opened to
    others because, as root, the embedded server runs as another user.
    """
    folder = Path(tempfile.mkdtemp(prefix="memsync-demo-"))
    folder.chmod(_DIRECTORY_MODE)
    ctx.obj = Options(
        ctx.obj.config, f"embedded:{folder / 'postgres'}", f"edge:{folder / 'qdrant'}"
    )
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
