"""Every statement that memsync runs against Postgres outside migrations, by name.

They stand in the `.sql` files of this folder, one for each thing they are about, and are read once
at import. Decides their format: `-- name: x` (or `-- fragment: x`), comment lines that describe it,
the statement. A statement or fragment takes another in by writing its name in braces, so nothing
but text from these files ever becomes SQL. Parameters are psycopg's `%(name)s`. The app's tables
are found by the connection's search_path; memsync's own are always written with their schema.
Knows nothing of what the statements do.
"""

import re
from dataclasses import dataclass
from importlib.resources import files

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
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        name = head["name"]
        block = text[head.end() : after.start() if after else len(text)].strip().splitlines()
        about = [line for line in block if line.startswith("--")]
        sql = "\n".join(line for line in block if not line.startswith("--")).strip().rstrip(";")
        if name in found or not about or not sql:
            raise ValueError(f"query {name}: named twice, or without comment or statement")
        found[name] = Query(name, head["kind"], " ".join(line[3:] for line in about), sql)
    return found


def load() -> dict[str, Query]:
    """The statements and fragments of all files.

    Raises: ValueError as `parse`, also for a name that two files give.
    """
    found: dict[str, Query] = {}
    for file in files(__name__).iterdir():
        if file.name.endswith(".sql"):
            more = parse(file.read_text())
            if twice := found.keys() & more.keys():
                raise ValueError(f"{file.name} names again: {', '.join(sorted(twice))}")
            found |= more
    return found


_ALL = load()


def statement(name: str, **fragments: str) -> str:
    """The SQL of the statement `name`, its fragments taken in.

    `fragments` says which named fragment fills a hole that is no fragment's own name.

    Raises: KeyError for a name that no file has.
    """
    return _filled(_ALL[name].sql, fragments)


def _filled(sql: str, fragments: dict[str, str]) -> str:
    def fragment(hole: re.Match[str]) -> str:
        return _filled(_ALL[fragments.get(hole[1], hole[1])].sql, fragments)

    return _HOLE.sub(fragment, sql)
