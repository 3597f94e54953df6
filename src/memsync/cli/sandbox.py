"""The embedded stores of a folder, and the file of settings that names them.

Used by init and demo, the two commands that make stores. It decides where they are, and that no
file is ever overwritten.
"""

import hashlib
import os
from pathlib import Path

from memsync.errors import InvalidInput
from memsync.settings import ENV_PREFIX, Settings, data_dir

_NAME_CHARS_MAX = 40
_DIGEST_CHARS = 8
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


def folder_for(file: Path) -> Path:
    """The folder below the user's data for the stores of the project that the file belongs to.

    Each project, which is the file's folder, has one of its own: two that shared their stores would
    read each other's messages. The digest tells folders of one name apart.
    """
    project = file.absolute().parent.resolve()
    digest = hashlib.sha256(os.fsencode(project)).hexdigest()[:_DIGEST_CHARS]
    return data_dir() / f"{project.name[:_NAME_CHARS_MAX]}-{digest}"


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
    """Refuse a file that stands and says something else, and one that cannot be written.

    Raises: InvalidInput.
    """
    if not os.path.lexists(file):
        folder = file.absolute().parent
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise InvalidInput(
                f"cannot write {file}: {folder} is no folder that can be written to. Make it, or "
                "name another file with --config"
            )
        return
    try:
        stands = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InvalidInput(
            f"{file} stands already, and cannot be read: {error.strerror}. Move it away, or name "
            "another file with --config"
        ) from None
    if stands != text:
        raise InvalidInput(
            f"{file} stands already, and is not overwritten. Run `memsync init` for the stores "
            "that it names; or move it away; or name another file with --config"
        )


def write_new(file: Path, text: str) -> bool:
    """Write the file; False where it stands and says the same.

    Raises: InvalidInput as `require_free`, and for a file that cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        require_free(file, text)
        return False
    except OSError as error:
        raise InvalidInput(f"cannot write {file}: {error.strerror}") from None
    return True


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    escaped = "".join(
        f"\\u{ord(each):04x}" if each in '"\\' or not each.isprintable() else each for each in text
    )
    return f'"{escaped}"'
