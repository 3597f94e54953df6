"""The rules for memsync's SQL: what a statement may not do to a live app's tables.

Each rule is a function over one node of Postgres' parse tree. A table is the app's if the file did
not create it and its schema is public or not named. The module does not know where the SQL is.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pglast import ast as sql
from pglast import parse_sql
from pglast.enums import (
    A_Expr_Kind,
    AlterTableType,
    BoolExprType,
    ConstrType,
    DropBehavior,
    SQLValueFunctionOp,
    SubLinkType,
)
from pglast.parser import ParseError

_UTC = frozenset(("created_at", "updated_at", "last_attempt_at"))
_CLOCKS = frozenset(("now", "clock_timestamp", "transaction_timestamp", "statement_timestamp"))
_CLOCK_WORDS = frozenset(
    (
        SQLValueFunctionOp.SVFOP_CURRENT_TIMESTAMP,
        SQLValueFunctionOp.SVFOP_CURRENT_TIMESTAMP_N,
        SQLValueFunctionOp.SVFOP_LOCALTIMESTAMP,
        SQLValueFunctionOp.SVFOP_LOCALTIMESTAMP_N,
    )
)
_ZONED = frozenset(("_prisma_migrations",))
"""Tables of the app whose timestamps are with time zone."""

Rule = Callable[[Any, frozenset[str]], str | None]
_RULES: dict[str, tuple[tuple[type[sql.Node], ...], Rule]] = {}


def rule(code: str, *kinds: type[sql.Node]) -> Callable[[Rule], Rule]:
    """Register a rule for nodes of these kinds: it returns the message of a breach, or None."""

    def noted(check: Rule) -> Rule:
        _RULES[code] = (kinds, check)
        return check

    return noted


def breaches(node: Any, made: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The code and message of every rule that the statement or a part of it breaks.

    `made` are the tables that its file creates.
    """
    for part in _walk(node):
        for code, (kinds, check) in _RULES.items():
            if isinstance(part, kinds) and (message := check(part, made)):
                yield code, message


def made_in(texts: Iterable[str]) -> frozenset[str]:
    """The tables that these texts create, which no client uses yet."""
    made: set[str] = set()
    for text in texts:
        try:
            statements: Any = parse_sql(text)
        except ParseError:
            continue  # lint_sql reports it as UNREADABLE
        for raw in statements:
            match raw.stmt:
                case (
                    sql.CreateStmt(relation=sql.RangeVar(relname=str() as name))
                    | sql.CreateTableAsStmt(
                        into=sql.IntoClause(rel=sql.RangeVar(relname=str() as name))
                    )
                ):
                    made.add(name)
    return frozenset(made)


def _walk(node: Any) -> Iterator[sql.Node]:
    if isinstance(node, sql.Node):
        yield node
        for name in node:
            yield from _walk(getattr(node, name))
    elif isinstance(node, tuple | list):
        for each in node:
            yield from _walk(each)


def _of_app(relation: Any, made: frozenset[str]) -> bool:
    return (
        relation is not None
        and relation.schemaname in {None, "public"}
        and relation.relname not in made
    )


@rule("INDEX-BLOCKS", sql.IndexStmt)
def _index(node: Any, made: frozenset[str]) -> str | None:
    if _of_app(node.relation, made) and not node.concurrent:
        return f"CREATE INDEX on {node.relation.relname} without CONCURRENTLY stops its writers"
    return None


@rule("NOT-VALID", sql.AlterTableStmt)
def _constraint(node: Any, made: frozenset[str]) -> str | None:
    if not _of_app(node.relation, made):
        return None
    for command in node.cmds:
        match command.subtype, command.def_:
            case AlterTableType.AT_AddConstraint, sql.Constraint() as added:
                added_here = [added]
            case AlterTableType.AT_AddColumn, sql.ColumnDef() as column:
                added_here = list(column.constraints or ())
            case _:
                continue
        for each in added_here:
            if each.contype in {ConstrType.CONSTR_FOREIGN, ConstrType.CONSTR_CHECK}:
                if not each.skip_validation:
                    return "a constraint without NOT VALID scans the table under a strong lock"
            elif (
                each.contype in {ConstrType.CONSTR_UNIQUE, ConstrType.CONSTR_PRIMARY}
                and not each.indexname
            ):
                return "UNIQUE or PRIMARY KEY without USING INDEX builds one under a strong lock"
    return None


@rule("SET-NOT-NULL", sql.AlterTableStmt)
def _not_null(node: Any, made: frozenset[str]) -> str | None:
    sets = any(each.subtype is AlterTableType.AT_SetNotNull for each in node.cmds)
    if sets and _of_app(node.relation, made):
        return "SET NOT NULL scans the table under the strongest lock, unless a check is validated"
    return None


@rule("STRONG-LOCK", sql.VacuumStmt, sql.ClusterStmt, sql.LockStmt, sql.TruncateStmt)
def _lock(node: Any, made: frozenset[str]) -> str | None:
    match node:
        case sql.VacuumStmt():
            full = any(option.defname == "full" for option in node.options or ())
            return "VACUUM FULL locks readers out" if full else None
        case sql.ClusterStmt():
            return "CLUSTER locks readers out"
        case sql.LockStmt() | sql.TruncateStmt():
            if any(_of_app(each, made) for each in node.relations or ()):
                what = "TRUNCATE" if isinstance(node, sql.TruncateStmt) else "LOCK TABLE"
                return f"{what} on a table of the app stops its clients"
    return None


@rule("NO-WHERE", sql.UpdateStmt, sql.DeleteStmt)
def _where(node: Any, _: frozenset[str]) -> str | None:
    verb = "UPDATE" if isinstance(node, sql.UpdateStmt) else "DELETE"
    return None if node.whereClause else f"{verb} without WHERE"


@rule("SELECT-STAR", sql.SelectStmt)
def _star(node: Any, _: frozenset[str]) -> str | None:
    tables = {
        (each.alias.aliasname if each.alias else each.relname)
        for each in _from_items(node.fromClause)
        if isinstance(each, sql.RangeVar)
    }
    for target in node.targetList or ():
        match target.val:
            case sql.ColumnRef(fields=[*of, sql.A_Star()]) if tables and (
                not of or of[-1].sval in tables
            ):
                return "SELECT * returns other columns when the table changes; name the columns"
    return None


def _from_items(clause: Any) -> Iterator[sql.Node]:
    for each in clause or ():
        if isinstance(each, sql.JoinExpr):
            yield from _from_items([each.larg, each.rarg])
        else:
            yield each


@rule("NOT-IN", sql.BoolExpr, sql.SubLink)
def _not_in(node: Any, _: frozenset[str]) -> str | None:
    message = "NOT IN (SELECT …) is never true if the subquery returns a NULL; use NOT EXISTS"
    match node:
        case sql.BoolExpr(boolop=BoolExprType.NOT_EXPR, args=[sql.SubLink() as link]):
            return message if link.subLinkType is SubLinkType.ANY_SUBLINK else None
        case sql.SubLink(subLinkType=SubLinkType.ALL_SUBLINK, operName=[sql.String(sval="<>")]):
            return message
    return None


@rule("ADVISORY-WAIT", sql.FuncCall)
def _advisory(node: Any, _: frozenset[str]) -> str | None:
    if node.funcname[-1].sval in {"pg_advisory_lock", "pg_advisory_lock_shared"}:
        return "a wait in pg_advisory_lock deadlocks CREATE INDEX CONCURRENTLY; try, and poll"
    return None


@rule("CASCADE", sql.DropStmt, sql.AlterTableCmd, sql.TruncateStmt, sql.DropOwnedStmt)
def _cascade(node: Any, _: frozenset[str]) -> str | None:
    if node.behavior is not DropBehavior.DROP_CASCADE:
        return None
    return "CASCADE drops objects that the statement does not name"


@rule("UTC", sql.InsertStmt, sql.UpdateStmt, sql.A_Expr)
def _utc(node: Any, made: frozenset[str]) -> str | None:
    message = "now() becomes the session's local time in a column in UTC: AT TIME ZONE 'UTC'"
    match node:
        case sql.A_Expr(kind=A_Expr_Kind.AEXPR_OP, lexpr=left, rexpr=right):
            pairs = [(_column(left), right), (_column(right), left)]
        case sql.InsertStmt() if _of_app(node.relation, made):
            names = [target.name for target in node.cols or ()]
            pairs = [pair for row in _inserted(node.selectStmt) for pair in zip(names, row)]  # noqa: B905  a row may be short: defaults
            pairs += _assigned(node.onConflictClause.targetList) if node.onConflictClause else []
        case sql.UpdateStmt() if _of_app(node.relation, made):
            pairs = _assigned(node.targetList)
        case _:
            return None
    if getattr(node, "relation", None) is not None and node.relation.relname in _ZONED:
        return None
    return message if any(name in _UTC and _tells_time(value) for name, value in pairs) else None


def _assigned(targets: Any) -> list[tuple[str | None, Any]]:
    return [(target.name, target.val) for target in targets or ()]


def _inserted(select: Any) -> Iterator[list[Any]]:
    """The values of each row that an INSERT writes, in order."""
    if select is None:
        return
    if select.valuesLists:
        yield from (list(row) for row in select.valuesLists)
    elif select.larg is not None:
        yield from _inserted(select.larg)
        yield from _inserted(select.rarg)
    else:
        yield [target.val for target in select.targetList or ()]


def _column(node: Any) -> str | None:
    """The name if the column is the app's created_at; memsync's own columns have a zone."""
    match node:
        case sql.ColumnRef(fields=[*_, sql.String(sval=name)]) if name == "created_at":
            return str(name)
    return None


def _tells_time(node: Any) -> bool:
    """Whether the value is the clock's time with zone, perhaps moved or rounded."""
    match node:
        case sql.SQLValueFunction():
            return node.op in _CLOCK_WORDS
        case sql.FuncCall(funcname=[*_, sql.String(sval=name)]) if name in _CLOCKS:
            return True
        case sql.FuncCall(funcname=[*_, sql.String(sval="date_trunc" | "coalesce")], args=args):
            return any(_tells_time(each) for each in args or ())
        case sql.CoalesceExpr(args=args) | sql.MinMaxExpr(args=args):
            return any(_tells_time(each) for each in args or ())
        case sql.A_Expr(kind=A_Expr_Kind.AEXPR_OP, lexpr=left, rexpr=right):
            return _tells_time(left) or _tells_time(right)
        case sql.TypeCast(arg=inner):
            return _tells_time(inner)
    return False


@rule("SEARCH-PATH", sql.CreateFunctionStmt)
def _definer(node: Any, _: frozenset[str]) -> str | None:
    options = list(node.options or ())
    definer = any(each.defname == "security" and each.arg.boolval for each in options)
    pinned = any(each.defname == "set" and each.arg.name == "search_path" for each in options)
    if definer and not pinned:
        return "SECURITY DEFINER without SET search_path runs what its caller puts on the path"
    return None


@rule(
    "TEMP", sql.CreateStmt, sql.CreateTableAsStmt, sql.ViewStmt, sql.CreateSeqStmt, sql.IntoClause
)
def _temp(node: Any, _: frozenset[str]) -> str | None:
    match node:
        case sql.CreateStmt(relation=relation):
            pass
        case sql.IntoClause(rel=relation):
            pass
        case sql.ViewStmt(view=relation):
            pass
        case sql.CreateSeqStmt(sequence=relation):
            pass
        case _:
            return None
    if relation is not None and relation.relpersistence == "t":
        return "a temporary object ties the work to one session, and hides tables of its name"
    return None


CODES = frozenset(_RULES) | {"ERROR-STOP", "UNREADABLE"}
