"""What `--report FORMAT=FILE` asks for. This module reads the option, and touches no file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memsync.errors import InvalidInput
from memsync.model.wording import listed

FORMAT_NAMES = ("text", "json", "json-lines", "junit", "prometheus", "html")


@dataclass(frozen=True, slots=True)
class Target:
    """A report that was asked for: its format, and the file that it goes to."""

    format: str
    path: Path

    def __str__(self) -> str:
        return f"{self.format}={self.path}"


def targets_of(asked: Sequence[str]) -> tuple[Target, ...]:
    """The reports that `--report FORMAT=FILE` asks for.

    Raises: InvalidInput for an unknown format, a missing file, and a file that is named twice.
    """
    targets = tuple(_target(each) for each in asked)
    places = [_place(each.path) for each in targets]
    if twice := [
        each for each, place in zip(targets, places, strict=True) if places.count(place) > 1
    ]:
        raise InvalidInput(
            f"--report names one file twice: {listed(map(str, twice))}. Name a file for each"
        )
    return targets


def _target(asked: str) -> Target:
    name, is_named, file = asked.partition("=")
    if name not in FORMAT_NAMES:
        raise InvalidInput(
            f"--report takes FORMAT=FILE, and {name!r:.40} is no format; "
            f"there are {listed(FORMAT_NAMES, len(FORMAT_NAMES))}"
        )
    if not is_named or file in {"", "-"}:
        raise InvalidInput(
            f"--report {name} needs a file: --report {name}=FILE. stdout has the text, or with "
            "--json and --json-lines what programs read"
        )
    if "\0" in file:
        raise InvalidInput("--report cannot write a file whose name holds a NUL")
    return Target(name, Path(file))


def _place(path: Path) -> Path:
    return path.parent.resolve() / path.name
