"""The embedded stores of a folder, and the file of settings that names them.

Used by init and demo, the two commands that make stores. It decides where in the folder they are,
and that no file is ever overwritten.
"""

import os
from pathlib import Path

from memsync.errors import InvalidInput
from memsync.settings import ENV_PREFIX, Settings

_TEXT = """\
# The settings of memsync. A folder is relative to this file.
postgres_url = {postgres}
qdrant_url = {qdrant}
"""


def stores_in(folder: Path) -> Settings:
    """Settings that name the embedded stores of a folder."""
    return Settings(
        postgres_url=f"embedded:{folder / 'postgres'}", qdrant_url=f"edge:{folder / 'qdrant'}"
    )


def text_of(file: Path, folder: Path) -> str:
    """The text of a file of settings that names the stores of `folder`.

    Below the file's own folder they are named relative to it, so that both can be moved together.
    """
    home, named = file.absolute().parent, folder.absolute()
    if named.is_relative_to(home):
        named = named.relative_to(home)
    postgres, qdrant = f"embedded:{named / 'postgres'}", f"edge:{named / 'qdrant'}"
    return _TEXT.format(postgres=_quoted(postgres), qdrant=_quoted(qdrant))


def require_unhidden(file: Path) -> None:
    """Refuse to write settings that variables would override.

    Raises: InvalidInput.
    """
    names = [f"{ENV_PREFIX}{store}" for store in ("POSTGRES_URL", "QDRANT_URL")]
    if given := [name for name in names if os.environ.get(name)]:
        raise InvalidInput(
            f"{' and '.join(given)} would override {file}: unset it, or run `memsync init` without "
            "--embedded for the stores that it names"
        )


def require_free(file: Path, text: str) -> None:
    """Refuse a file that stands and says something else.

    Raises: InvalidInput.
    """
    if file.exists() and file.read_text(encoding="utf-8", errors="replace") != text:
        raise InvalidInput(
            f"{file} stands already, and is not overwritten. Run `memsync init` for the stores "
            "that it names; or move it away; or name another file with --config"
        )


def write_new(file: Path, text: str) -> None:
    """Write the file, unless it stands and says the same.

    Raises: InvalidInput as `require_free`, and for a file that cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        require_free(file, text)
    except OSError as error:
        raise InvalidInput(f"cannot write {file}: {error.strerror}") from None


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    escaped = "".join(
        f"\\u{ord(each):04x}" if each in '"\\' or not each.isprintable() else each for each in text
    )
    return f'"{escaped}"'
