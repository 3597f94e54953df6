"""Finds the SQL in memsync's files, and parses it into statements with their line numbers.

There are three kinds of file: named statements with holes and parameters, scripts for psql
(meta-commands and variables), Python (string literals that begin with an SQL keyword). Holes and
variables are replaced without moving any line. The module does not know the rules.
"""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pglast import ast as sql
from pglast import parse_sql
from pglast.parser import ParseError, parse_plpgsql_json

_SQL = re.compile(
    r"\s*(ALTER|CLUSTER|COMMENT|COPY|CREATE|DELETE|DO|DROP|GRANT|INSERT|LOCK|REFRESH|REINDEX|REVOKE"
    r"|SELECT|SET|TRUNCATE|UPDATE|VACUUM|WITH)\s(?!.*\bfiles?\b)"
)
_QUERY = re.compile(r"^-- (name|fragment): ([a-z_]+)\n", re.MULTILINE)
_HOLE = re.compile(r"\{([a-z_]*)\}")
_SHIPPED = (
    "sql/*.sql",
    "sql/ops/*.sql",
    "sql/steps/*.sql",
    "src/memsync/stores/**/*",
    "src/memsync/migrate/**/*.sql",
    "src/memsync/reconcile/**/*.sql",
)
_EXPRESSION, _ASSIGNMENTS = 2, {3, 4, 5}


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of SQL. `line` is the line where it begins, `first` that of the Python statement
    around it.
    """

    sql: str
    line: int
    first: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One parsed statement, its line in the file, and the line below its comment."""

    node: Any
    line: int
    first: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """SQL that cannot be parsed. It is a fault, because no rule can check it."""

    line: int
    why: str

    @property
    def first(self) -> int:
        """As for a statement."""
        return self.line


def is_named(text: str) -> bool:
    """Whether the text is that of a file with named statements."""
    return _QUERY.search(text) is not None


def shipped(root: Path) -> list[Path]:
    """Every file of memsync that may hold SQL."""
    found: list[Path] = []
    for pattern in _SHIPPED:
        found += sorted(root.glob(pattern))
    return [file for file in found if file.suffix in {".sql", ".py"}]


def chunks_of(file: Path, text: str) -> Iterator[Chunk | Unreadable]:
    """The SQL in a file; its fragments may be in any `.sql` file of the package."""
    if file.suffix == ".py":
        yield from _of_python(text)
    elif is_named(text):
        others = (each.read_text() for each in _sql_of_package() if each != file)
        beside = [other for other in others if is_named(other)]
        yield from _of_queries(text, beside)
    else:
        yield Chunk(_without_meta(text), 1, 1)


def _sql_of_package() -> list[Path]:
    return sorted((Path(__file__).parents[1] / "src" / "memsync").glob("**/*.sql"))


def _of_queries(text: str, beside: list[str]) -> Iterator[Chunk]:
    fragments = {
        name: body
        for other in [*beside, text]
        for kind, name, _, body in _bodies(other)
        if kind == "fragment"
    }

    def filled(body: str) -> str:
        def fragment(hole: re.Match[str]) -> str:
            # A hole that the caller fills takes a fragment whose name begins with it, else `x`.
            fits = [hole[1], *sorted(n for n in fragments if n.startswith(f"{hole[1]}_"))]
            found = next((name for name in fits if name in fragments), "")
            lines = fragments.get(found, "x").splitlines()
            text = " ".join(line for line in lines if not line.startswith("--"))
            return filled(text.strip().rstrip(";"))

        return _HOLE.sub(fragment, body)

    for kind, _, start, body in _bodies(text):
        # A fragment may be half a statement; it is parsed inside the statements that use it.
        if kind == "fragment":
            continue
        line = text.count("\n", 0, start) + 1
        yield Chunk(re.sub(r"%\(\w+\)s", "NULL", filled(body)).replace("%%", "%"), line, line)


def _bodies(text: str) -> Iterator[tuple[str, str, int, str]]:
    """Kind, name, where the body starts, and the body."""
    heads = list(_QUERY.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        yield head[1], head[2], head.end(), text[head.end() : end]


def _without_meta(text: str) -> str:
    r"""A psql script without meta-commands: `\gset` ends a statement, others take a whole line."""
    text = re.sub(r"\\(gset|gexec|gx|g)\b[^\n]*", ";", text)
    text = re.sub(r"^\s*\\[^\n]*", "", text, flags=re.MULTILINE)
    text = re.sub(r"(?<![:\w]):'(\w+)'", r"'\1'", text)
    text = re.sub(r'(?<![:\w]):"(\w+)"', r'"\1"', text)
    return re.sub(r"(?<![:\w]):([A-Za-z_]\w*)(?!\w)", "NULL", text)


def _of_python(text: str) -> Iterator[Chunk]:
    tree = ast.parse(text)
    inside: set[ast.AST] = set()
    # The innermost statements come first, because a literal belongs to the one directly around it.
    for outer in reversed(list(ast.walk(tree))):
        if not isinstance(outer, ast.stmt) or isinstance(outer, ast.FunctionDef | ast.ClassDef):
            continue
        for node in ast.walk(outer):
            if node in inside:
                continue
            if isinstance(node, ast.JoinedStr):
                inside.update(ast.walk(node))
                said = "".join(_said(part) for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                inside.add(node)
                said = node.value
            else:
                continue
            if _SQL.match(said):
                line = node.lineno
                yield Chunk(_without_holes(said), line, min(outer.lineno, line))


def _said(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    name = part.value if isinstance(part, ast.FormattedValue) else part
    # The name gets a prefix, because a variable may be called `check`, which is a keyword.
    return f"x_{name.id.lower()}" if isinstance(name, ast.Name) else "x"


def _without_holes(text: str) -> str:
    """The text with psycopg's holes and parameters replaced by something that parses."""
    text = re.sub(r"\bAS \{\}", "AS SELECT 1", text)
    text = re.sub(r"= \{\}", "= 0", text)
    text = re.sub(r"\bSNAPSHOT \{\}", "SNAPSHOT ''", text)
    text = re.sub(r"\{[a-z_]*\};", "NULL;", text)
    text = re.sub(r"(VALUES|LIMIT) \{[a-z_]*\}", r"\1 NULL", text)
    text = re.sub(r"\{([a-z_]+)\}", r"\1", text).replace("{}", "x")
    return re.sub(r"%\(\w+\)s|%s", "NULL", text)


def statements_of(chunk: Chunk) -> Iterator[Statement | Unreadable]:
    """The statements of a chunk, with those inside functions, DO blocks and EXECUTE."""
    for each in _parsed(chunk.sql, chunk.line):
        if isinstance(each, Statement) and each.line == chunk.line:
            yield replace(each, first=chunk.first)
        else:
            yield each


def _parsed(text: str, line: int) -> Iterator[Statement | Unreadable]:
    try:
        found = parse_sql(text)
    except ParseError as error:
        message, at = error.args if len(error.args) > 1 else (error.args[0], 0)
        why = f"{message}: {' '.join(text[at:].split())[:60]}"
        yield Unreadable(line + text.count("\n", 0, at), why)
        return
    for raw in found:
        start = raw.stmt_location or 0
        end = start + raw.stmt_len if raw.stmt_len else len(text)
        # Only blanks and comments precede the first word.
        body = text[start:end]
        begin = start + len(body) - len(_from_first_word(body))
        at = line + text.count("\n", 0, begin)
        yield Statement(raw.stmt, at, at)
        yield from _inside(raw.stmt, text[begin:end], at)


def _from_first_word(text: str) -> str:
    return re.sub(r"^(\s+|--[^\n]*(\n|$)|/\*.*?\*/)+", "", text, flags=re.DOTALL)


def _inside(node: Any, text: str, line: int) -> Iterator[Statement | Unreadable]:
    """The statements in the body of a function or of a DO block."""
    options = node.options if isinstance(node, sql.CreateFunctionStmt) else None
    options = node.args if isinstance(node, sql.DoStmt) else options
    named = {option.defname: option.arg for option in options or ()}
    if "as" not in named:
        return
    language = named["language"].sval if "language" in named else "plpgsql"
    opening = re.search(r"\$\w*\$|'", text)
    body_line = line + text.count("\n", 0, opening.start()) if opening else line
    if language == "sql":
        yield from _parsed(named["as"][0].sval, body_line)
    elif language == "plpgsql":
        try:
            parsed = json.loads(parse_plpgsql_json(text))
        except ParseError as error:
            yield Unreadable(body_line, f"PL/pgSQL: {error.args[0]}")
            return
        yield from _of_plpgsql(parsed, body_line, body_line)


def _of_plpgsql(node: Any, body_line: int, line: int) -> Iterator[Statement | Unreadable]:
    if isinstance(node, list):
        for each in node:
            yield from _of_plpgsql(each, body_line, line)
        return
    if not isinstance(node, dict):
        return
    if "lineno" in node:
        line = body_line + node["lineno"] - 1
    if "query" in node and isinstance(node["query"], str):
        yield from _of_expression(node["query"], node.get("parseMode", 0), line)
        return
    for kind, value in node.items():
        if kind in {"PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_dynfors"}:
            at = body_line + value.get("lineno", 1) - 1
            yield from _dynamic(value["query"]["PLpgSQL_expr"]["query"], at)
        if kind == "dynquery":
            yield from _dynamic(value["PLpgSQL_expr"]["query"], line)
        yield from _of_plpgsql(value, body_line, line)


def _of_expression(text: str, mode: int, line: int) -> Iterator[Statement | Unreadable]:
    if mode in _ASSIGNMENTS:
        text = re.split(r":?=", text, maxsplit=1)[1]
    yield from _parsed(f"SELECT {text}" if mode else text, line)


def _dynamic(text: str, line: int) -> Iterator[Statement | Unreadable]:
    """The statements that EXECUTE runs, as far as its text is literal."""
    selected: Any = parse_sql(f"SELECT {text}")[0].stmt
    literal = _literal(selected.targetList[0].val)
    if literal is None:
        return
    whole, said = literal
    found = list(_parsed(re.sub(r"%(\d+\$)?[ILs]", "x", said), line))
    if whole or not any(isinstance(each, Unreadable) for each in found):
        yield from found


def _literal(node: Any) -> tuple[bool, str] | None:
    """Whether all of an expression's text is known, and the text, with `x` for unknown parts."""
    match node:
        case sql.A_Const(val=sql.String(sval=said)):
            return True, str(said)
        case sql.FuncCall(funcname=[*_, sql.String(sval="format")], args=[first, *_]):
            inner = _literal(first)
            return (False, inner[1]) if inner else None
        case sql.A_Expr(name=[sql.String(sval="||")], lexpr=left, rexpr=right):
            sides = [_literal(side) or (False, "x") for side in (left, right)]
            return all(whole for whole, _ in sides), "".join(said for _, said in sides)
    return None
