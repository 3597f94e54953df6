"""Keeps a file that is made from the code: writes it, or with `--check` says that it is stale."""

import sys
from pathlib import Path


def keep(file: Path, text: str, target: str) -> int:
    """Bring the file up to `text`; `target` of the Makefile does so. The exit status.

    With `--check` nothing is written, and the status is 1 when the file is stale.
    """
    check = "--check" in sys.argv[1:]
    if file.is_file() and file.read_text() == text:
        return 0
    print(f"{file.name}: {f'stale, run `make {target}`' if check else 'written'}")
    if not check:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return int(check)
