"""`memsync demo`: plays the story of memsync on stores of its own, and can leave them for trying.

The commands of the story are run as they would be typed, and what they print is shown. The
operator's settings are ignored, because the story writes a whole app and must never reach real
stores, and because its expectations hold for the default settings only.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from memsync.cli import sandbox
from memsync.cli.options import Options
from memsync.cli.output import captured, data, print_facts, print_json, say
from memsync.cli.statuses import INTERNAL_ERROR, INTERRUPTED
from memsync.demo import page, story
from memsync.demo.world import Recipe, make_world, read_dialogues
from memsync.errors import InvalidInput
from memsync.settings import DEFAULT_FILE, ENV_PREFIX, Settings
from memsync.stores.postgres.embedded import start_embedded

_DIRECTORY_MODE = 0o755
_NAMES = ("postgres", "postgres.*", "qdrant", DEFAULT_FILE.name, page.NAME, story.PLAN)
EMBEDDER = "wordllama"
"""It makes the demo's vectors, and is named, because `layout set` copies no vectors of a model
that nobody named."""
_HEAD_LINES, _TAIL_LINES = 18, 3
SHOWN_LINES = _HEAD_LINES + _TAIL_LINES
"""How many lines of a long output are shown, from its beginning and its end."""


def demo(
    ctx: typer.Context,
    dialogues: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Use this file's dialogues (jsonl.gz), not made-up ones."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed makes another app.")] = 1,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Leave both stores, their settings and a page of commands in this new folder.",
        ),
    ] = None,
    legacy: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The same, but stop before the migration, so that you do it yourself.",
        ),
    ] = None,
) -> int:
    """Build a legacy app with known faults, migrate, reconcile, check, recall; show each step."""
    if keep and legacy:
        raise InvalidInput("--keep plays the whole story, --legacy its beginning: give one of them")
    started = time.monotonic()
    source = tuple(read_dialogues(dialogues)) if dialogues else ()
    world = make_world(
        Recipe(
            seed=seed,
            now=datetime.now(UTC),
            source=source,
            users=max(24, len(source) // 25),
            faults=story.FAULTS,
        )
    )
    played: list[dict[str, Any]] = []
    with _folder(keep or legacy) as folder, _alone_in(folder) as settings:
        stage = story.Stage(settings)
        for scene in [story.begin(stage, world)] if legacy else story.play(stage, world):
            played.append(_played(ctx, scene, len(played) + 1))
        if home := keep or legacy:
            text = sandbox.text_of(DEFAULT_FILE, folder) + f'embedder = "{EMBEDDER}"\n'
            sandbox.write_new(DEFAULT_FILE, text)
            page.write(folder, world, migrated=keep is not None)
    failed = [f"{each['title']}: {why}" for each in played for why in each["failed"]]
    if ctx.obj.as_json:
        print_json(ok=not failed, scenes=played, kept=str(folder) if home else None)
    elif not failed:
        what = "The app was made" if legacy else "Everything came true"
        say()
        say(f"{what} in {time.monotonic() - started:.0f} s.")
        if home:
            say(f"{page.NAME} in {home} says what to type there; begin with: cd {home}")
    for each in failed:
        typer.echo(f"FAILED {each}", err=True)
    return INTERNAL_ERROR if failed else 0


def _played(ctx: typer.Context, scene: story.Scene, number: int) -> dict[str, Any]:
    """Play one scene and show it, unless it is for JSON. Returns its parts."""
    as_json = ctx.obj.as_json
    if not as_json:
        say()
        say(f"{number}. {scene.title}", "bold")
    status, result = 0, None
    if scene.command:
        status, said = _run(ctx, shlex.split(scene.command)[1:])
        result = json.loads(said) if as_json else None
        if not as_json:
            _show(scene.command, said, status)
    elif not as_json:
        print_facts(scene.facts)
    failed = [] if status == scene.status else [f"exit status: {status}, not {scene.status}"]
    failed += scene.unmet()
    for each in () if as_json else failed:
        say(f"   FAILED {each}", "bold red")
    return {
        "title": scene.title,
        "command": scene.command,
        "status": status,
        "facts": [[name, str(value)] for name, value in scene.facts],
        "result": result,
        "failed": failed,
    }


def _run(ctx: typer.Context, words: list[str]) -> tuple[int, str]:
    """Run a command in this process; return its exit status and what it printed on stdout."""
    given: Options = ctx.obj
    own = Options(as_json=given.as_json, quiet=given.quiet, no_color=given.no_color)
    with captured(own) as printed:
        status = ctx.find_root().command.main(
            args=words, prog_name="memsync", standalone_mode=False, obj=own
        )
    if status == INTERRUPTED:
        raise KeyboardInterrupt  # which typer has taken for the command's own
    return int(status or 0), "".join(printed).removesuffix("\n")


def _show(command: str, said: str, status: int) -> None:
    """Print a transcript; the middle of a long one is left out, and how much of it is said."""
    lines = said.split("\n")
    left_out = len(lines) - SHOWN_LINES
    if left_out > 0:
        lines[_HEAD_LINES:-_TAIL_LINES] = [f"[… {left_out} more lines …]"]
    data("\n".join([f"$ {command}", *lines]))
    if status:
        data(f"[exit status {status}]")


@contextlib.contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """The folder of the stores: `kept`, else a temporary one, which is removed afterwards.

    Of a story that was cut short nothing is kept but what others put there. Others may read a new
    folder, because under root the embedded server runs as another user.

    Raises: InvalidInput when there is something in `kept`.
    """
    is_new = kept is None or not kept.exists()
    folder = _new_or_empty(kept) if kept else Path(tempfile.mkdtemp(prefix="memsync-demo-"))
    done = False
    try:
        if is_new:
            folder.chmod(_DIRECTORY_MODE)
        yield folder
        done = True
    finally:
        if not (kept and done):
            with _uninterrupted():
                _remove_own(folder)
                if kept is None:
                    shutil.rmtree(folder, ignore_errors=True)
                elif is_new:
                    with contextlib.suppress(OSError):  # others have put something there
                        folder.rmdir()


def _new_or_empty(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InvalidInput(
                f"{folder} is not empty, and the demo overwrites nothing: name a new folder"
            )
    except OSError as error:
        raise InvalidInput(f"cannot use {folder}: {error.strerror}; name another folder") from None
    return folder.resolve()


def _remove_own(folder: Path) -> None:
    """Remove what the demo makes in its folder. Others may have put something there meanwhile."""
    for each in [path for name in _NAMES for path in folder.glob(name)]:
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[Settings]:
    """Settings of two stores in the folder, which are all that commands find while this goes on.

    The working directory is the folder, so no other memsync.toml is found. The server runs all the
    while, because starting it for each command would take longer than the commands.
    """
    with start_embedded(folder / "postgres") as server, contextlib.chdir(folder):
        settings = Settings(
            postgres_url=server.conninfo,
            qdrant_url=f"edge:{folder / 'qdrant'}",
            drain="no",  # the story has a scene for it
            embedder=EMBEDDER,
        )
        postgres, qdrant = settings.named("postgres_url", "qdrant_url")
        with _environment(
            MEMSYNC_POSTGRES_URL=postgres, MEMSYNC_QDRANT_URL=qdrant, MEMSYNC_EMBEDDER=EMBEDDER
        ):
            yield settings


@contextlib.contextmanager
def _environment(**ours: str) -> Iterator[None]:
    """Replace the operator's settings in the environment by `ours`."""
    theirs: Mapping[str, str] = {
        name: value for name, value in os.environ.items() if name.startswith((ENV_PREFIX, "PG"))
    }
    for name in theirs:
        del os.environ[name]
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
        os.environ.update(theirs)


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
