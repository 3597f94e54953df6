"""`memsync demo`: plays the story of memsync on temporary stores, and prints each step."""

import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from memsync.cli.output import print_facts, print_json, say
from memsync.cli.progress import progress
from memsync.cli.statuses import INTERNAL_ERROR
from memsync.cli.stores import opened_postgres
from memsync.demo import story
from memsync.demo.world import Recipe, read_dialogues
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.vectors import open_vectors

_DIRECTORY_MODE = 0o755


def demo(
    ctx: typer.Context,
    dialogues: Annotated[
        Path | None, typer.Option(help="Use this file's dialogues (jsonl.gz), not made-up ones.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed makes another app.")] = 1,
) -> int:
    """Build a legacy app with known faults, migrate, reconcile, check, recall; print each step."""
    started = time.monotonic()
    source = tuple(read_dialogues(dialogues)) if dialogues else ()
    recipe = Recipe(
        seed=seed,
        now=datetime.now(UTC),
        source=source,
        users=max(24, len(source) // 25),
        faults=story.FAULTS,
    )
    scenes: list[story.Scene] = []
    with (
        _stores_of_its_own(ctx),
        opened_postgres(ctx) as (settings, postgres),
        contextlib.closing(open_vectors(settings)) as vectors,
        progress(ctx.obj) as tell,
    ):
        stage = story.Stage(postgres, vectors, LongTermMemory(vectors, settings), settings, tell)
        for scene in story.play(stage, recipe):
            scenes.append(scene)
            if not ctx.obj.as_json:
                _print(len(scenes), scene)
    failed = [f"{scene.title}: {each}" for scene in scenes for each in scene.failed]
    if ctx.obj.as_json:
        print_json(ok=not failed, scenes=[asdict(scene) for scene in scenes])
    elif not failed:
        say(f"\nEverything came true in {time.monotonic() - started:.0f} s.")
    for each in failed:
        typer.echo(f"FAILED {each}", err=True)
    return INTERNAL_ERROR if failed else 0


def _print(number: int, scene: story.Scene) -> None:
    say(f"\n{number}. {scene.title}", "bold")
    if scene.command:
        say(f"   $ {scene.command}")
    print_facts(scene.facts)
    for each in scene.failed:
        say(f"   FAILED {each}", "bold red")


@contextlib.contextmanager
def _stores_of_its_own(ctx: typer.Context) -> Iterator[None]:
    """Fix the settings to stores in a temporary folder, which is removed afterwards.

    The operator's settings are ignored, because the story writes a whole app and must never reach
    real stores, and because its expectations hold for the default settings only. Others may read
    the folder, because under root the embedded server runs as another user.
    """
    folder = Path(tempfile.mkdtemp(prefix="memsync-demo-"))
    folder.chmod(_DIRECTORY_MODE)
    ctx.obj.fixed = Settings(
        postgres_url=f"embedded:{folder / 'postgres'}",
        qdrant_url=f"edge:{folder / 'qdrant'}",
        drain="no",  # the story has a scene for it
    )
    try:
        yield
    finally:
        with _uninterrupted():
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore further interrupts while the block cleans up after the first one."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
