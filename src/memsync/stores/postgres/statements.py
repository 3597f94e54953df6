"""Every statement that memsync runs against Postgres outside migrations, by name.

They stand in `.sql` files beside the code that runs them, and are read once. Decides their format:
`-- name: x` (or `-- fragment: x`), comment lines that describe it, the statement. A statement or
fragment takes another in by writing its name in braces, so nothing but text from these files ever
becomes SQL. Parameters are psycopg's `%(name)s`. The app's tables are found by the connection's
search_path; memsync's own are always written with their schema.
Knows nothing of what the statements do.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

_HEAD = re.compile(r"^-- (?P<kind>name|fragment): (?P<name>[a-z_]+)$", re.MULTILINE)
_HOLE = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Query:
    """One named statement or fragment. `about` is its describing comment."""

    name: str
    kind: str
    about: str
    sql: str


def parse(text: str) -> dict[str, Query]:
    """Split the text of a query file into its statements and fragments.

    Raises: ValueError for a name given twice, or one without a describing comment or statement.
    """
    found: dict[str, Query] = {}
    heads = list(_HEAD.finditer(text))
    for head, end in zip(heads, [*(each.start() for each in heads[1:]), len(text)], strict=False):
        name = head["name"]
        block = text[head.end() : end].strip().splitlines()
        about = [line for line in block if line.startswith("--")]
        sql = "\n".join(line for line in block if not line.startswith("--")).strip().rstrip(";")
        if name in found or not about or not sql:
            raise ValueError(f"query {name}: named twice, or without comment or statement")
        found[name] = Query(name, head["kind"], " ".join(line[3:] for line in about), sql)
    return found


@cache
def load() -> dict[str, Query]:
    """The statements and fragments of every file of the package that has any.

    Raises: ValueError as `parse`, also for a name that two files give.
    """
    found: dict[str, Query] = {}
    for file in _sql_files(files("memsync")):
        more = parse(file.read_text(encoding="utf-8"))
        if twice := found.keys() & more.keys():
            raise ValueError(f"{file.name} names again: {', '.join(sorted(twice))}")
        found |= more
    return found


def _sql_files(folder: Traversable) -> Iterator[Traversable]:
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        # The wheel keeps its scripts for psql in a folder that begins with _: none of them is ours.
        if each.is_dir() and not each.name.startswith("_"):
            yield from _sql_files(each)
        elif each.name.endswith(".sql"):
            yield each


def statement(name: str, **fragments: str) -> str:
    """The SQL of the statement `name`, its fragments taken in.

    `fragments` says which named fragment fills a hole that is no fragment's own name.

    Raises: KeyError for a name that no file has, or a hole that nothing fills.
    """
    return _filled(load()[name].sql, fragments)


def _filled(sql: str, fragments: dict[str, str]) -> str:
    def fragment(hole: re.Match[str]) -> str:
        taken = load()[fragments.get(hole[1], hole[1])]
        if taken.kind != "fragment":
            raise KeyError(f"{taken.name} is a statement: only a fragment is taken in")
        return _filled(taken.sql, fragments)

    return _HOLE.sub(fragment, sql)
