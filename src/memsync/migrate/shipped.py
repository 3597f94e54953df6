"""The folders that memsync ships beside its code: alembic's revisions, scripts for psql, docs."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped(folder: str, with_file: str) -> Path:
    """The folder: the wheel's copy of it inside the package, or the checkout's own.

    Raises: FileNotFoundError when neither has that file.
    """
    for candidate in (_PACKAGE / f"_{folder}", _PACKAGE.parents[1] / folder):
        if (candidate / with_file).is_file():
            return candidate
    raise FileNotFoundError(f"memsync is installed without its folder {folder} ({_PACKAGE})")
