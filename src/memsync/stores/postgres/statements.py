"""Loads memsync's named SQL statements and fills their holes.

Statements are in `.sql` files beside the code that runs them, and are read once. Their format is
`-- name: x` (or `-- fragment: x`), comment lines that describe it, the statement. A hole is a name
in braces. A fragment fills the hole of its own name, or the hole for which the caller names it; any
other hole takes what the caller composes with `psycopg.sql`. So only text from these files, quoted
identifiers and literals become SQL. Parameters are psycopg's `%(name)s`. The app's tables are found
by the connection's search_path; memsync's own are always written with their schema.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from psycopg import sql

_HEAD = re.compile(r"^-- (?P<kind>name|fragment): (?P<name>[a-z_]+)$", re.MULTILINE)
_HOLE = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Query:
    """A named statement or fragment. `about` is its comment, `file` its path in the package."""

    name: str
    kind: str
    about: str
    sql: str
    file: str


def parse(text: str, file: str = "") -> dict[str, Query]:
    """Split the text of a file into its statements and fragments.

    Raises: ValueError for a name given twice, or one without a describing comment or statement.
    """
    found: dict[str, Query] = {}
    heads = list(_HEAD.finditer(text))
    for head, end in zip(heads, [*(each.start() for each in heads[1:]), len(text)], strict=False):
        name = head["name"]
        block = text[head.end() : end].strip().splitlines()
        about = [line for line in block if line.startswith("--")]
        body = "\n".join(line for line in block if not line.startswith("--")).strip().rstrip(";")
        if name in found or not about or not body:
            raise ValueError(f"query {name}: named twice, or without comment or statement")
        described = " ".join(line[3:] for line in about)
        found[name] = Query(name, head["kind"], described, body, file)
    return found


@cache
def load() -> dict[str, Query]:
    """The statements and fragments of all the package's files, by name.

    Raises: ValueError as `parse`, also for a name that two files give.
    """
    found: dict[str, Query] = {}
    for path, file in _sql_files(files("memsync"), ""):
        more = parse(file.read_text(encoding="utf-8"), path)
        if twice := found.keys() & more.keys():
            raise ValueError(f"{path} names again: {', '.join(sorted(twice))}")
        found |= more
    return found


def _sql_files(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        # The wheel has the scripts for psql in `_sql`; they hold no named statements.
        if each.is_dir() and not each.name.startswith("_"):
            yield from _sql_files(each, f"{path}{each.name}/")
        elif each.name.endswith(".sql"):
            yield f"{path}{each.name}", each


def statement(name: str, **fragments: str) -> str:
    """The SQL of the statement `name`, with its holes filled by fragments.

    `fragments` maps a hole to the fragment that fills it; by default that is the one of its name.

    Raises: KeyError for a name that no file has, or a hole that nothing fills.
    """
    return _filled(load()[name].sql, fragments)


def composed(name: str, **holes: sql.Composable) -> sql.Composed:
    """The same for a statement whose holes take identifiers, literals or parts of statements.

    Raises: KeyError for a name that no file has, for a hole that nothing fills, and for a keyword
    that is no hole.
    """
    # The pattern has one group, so split() alternates between texts and the names of holes.
    parts = _HOLE.split(load()[name].sql)
    if strange := holes.keys() - set(parts[1::2]):
        raise KeyError(f"{name} has no hole {', '.join(sorted(strange))}")
    return sql.Composed(
        [
            sql.SQL(part) if number % 2 == 0 else holes.get(part) or sql.SQL(_fragment(part, {}))
            for number, part in enumerate(parts)
        ]
    )


def statements_of(file: str) -> list[str]:
    """The statements of one file, in their order; `file` is its path in the package."""
    found = [each for each in load().values() if each.file == file and each.kind == "name"]
    if not found:
        raise KeyError(f"{file} has no statements")
    return [_filled(each.sql, {}) for each in found]


def _filled(text: str, fragments: dict[str, str]) -> str:
    return _HOLE.sub(lambda hole: _fragment(hole[1], fragments), text)


def _fragment(hole: str, fragments: dict[str, str]) -> str:
    taken = load()[fragments.get(hole, hole)]
    if taken.kind != "fragment":
        raise KeyError(f"{taken.name} is a statement: only a fragment is taken in")
    return _filled(taken.sql, fragments)
