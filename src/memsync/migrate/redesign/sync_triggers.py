"""The mirror: triggers that keep the old settings and the redesigned ones in step.

While both versions of the app run, one writes `users.global_persona_id`, the other
`user_default_personas`; one writes `personalities.llm_config_id` and `context_window_size`, the
other `personality_default_configs` and `llm_configs`. Each trigger writes only what differs, so the
two sides of a pair stop one another. It stands from redesign to contract, and on the way back.
memsync's own copying, which locks both sides' rows, passes it by.
"""

from collections.abc import Iterator

from memsync.migrate.expand.sync_triggers import pinned_search_path
from memsync.stores.history.settings_tables import (
    CHOICES,
    CONFIGS,
    DEFAULTS,
    MIRRORS,
    OLD_CHOICES,
    Redesign,
)
from memsync.stores.postgres import sql
from memsync.stores.postgres.ddl import OnlineDdl
from memsync.stores.postgres.statements import load

_TEXTS = load()

_FUNCTIONS = {
    "is_waited_for": "",
    "config_with_window": "uuid, int, uuid",
    "sync_default": "uuid, uuid, timestamp",
    "sync_config": "uuid, uuid, int, timestamp",
    "sync_default_chosen": "uuid, uuid, timestamp, uuid, uuid",
    "sync_config_chosen": "uuid, uuid, timestamp, uuid, uuid",
    "sync_place": "",
    "sync_lock_new_place": "",
    "sync_window_of_config": "",
    "sync_default_is_global": "",
}
"""Their parameters' types, by name, in an order in which they can be made."""

_NOT_COPYING = "current_setting('memsync.copying_settings', true) IS DISTINCT FROM 'on'"

_TRIGGERS = {
    ("users", "memsync_sync_default"): (
        "AFTER INSERT OR UPDATE OF global_persona_id ON users",
        "sync_place('50ms')",
    ),
    (DEFAULTS, "memsync_sync_default"): (
        "AFTER INSERT OR UPDATE OR DELETE ON user_default_personas",
        "sync_place('300ms')",
    ),
    ("personalities", "memsync_sync_config"): (
        "AFTER INSERT OR UPDATE OF llm_config_id ON personalities",
        "sync_place('50ms')",
    ),
    (CONFIGS, "memsync_sync_config"): (
        "AFTER INSERT OR UPDATE OR DELETE ON personality_default_configs",
        "sync_place('300ms')",
    ),
    ("personas", "memsync_sync_default"): (
        "BEFORE DELETE ON personas",
        "sync_lock_new_place()",
    ),
    ("llm_configs", "memsync_sync_config"): (
        "BEFORE DELETE ON llm_configs",
        "sync_lock_new_place()",
    ),
    ("llm_configs", "memsync_sync_window"): (
        "AFTER UPDATE OF context_window_size ON llm_configs",
        "sync_window_of_config()",
    ),
    ("llm_configs", "memsync_sync_is_default"): (
        "BEFORE INSERT OR UPDATE OF is_default ON llm_configs",
        "sync_default_is_global()",
    ),
}


def build_functions(ddl: OnlineDdl, redesign: Redesign) -> None:
    """Make the functions as they are today, for the old columns that stand."""
    path = pinned_search_path(ddl)
    columns = (c.name for c in ddl.session.rows("insertable", relation="llm_configs"))
    holes: dict[str, sql.Composable] = {
        "search_path": path,
        "config_columns": sql.SQL(", ").join(map(sql.Identifier, columns)),
        "window": sql.SQL("NULL"),
        "take_window": sql.SQL(""),
        "other_window": sql.SQL(""),
    }
    if redesign.has_column("personalities", "context_window_size"):
        holes |= {
            "window": sql.SQL("NEW.context_window_size"),
            "take_window": sql.SQL(", context_window_size = size"),
            "other_window": sql.SQL(" OR context_window_size <> size"),
        }
    texts = (sql.SQL(_TEXTS[name].sql).format(**holes) for name in _FUNCTIONS)
    mine = (sql.SQL("REVOKE ALL ON FUNCTION {} FROM PUBLIC").format(each) for each in _signatures())
    ddl.run(*texts, *mine, table="users")


def build_triggers(ddl: OnlineDdl, redesign: Redesign, *tables: str) -> None:
    """Hang the triggers on these tables, where they are wanted and missing.

    Locks: SHARE ROW EXCLUSIVE on each, for a moment.
    """
    for table, name in sorted(redesign.mirrors):
        if table not in tables or redesign.has_trigger(table, name):
            continue
        moment, function = _TRIGGERS[table, name]
        if name == "memsync_sync_config" and table == "personalities":
            moment = _with_window(moment, redesign)
        # lint: allow UNREADABLE when it fires is filled in from the table above
        text = "CREATE TRIGGER {} {} FOR EACH ROW WHEN ({}) EXECUTE FUNCTION memsync.{}"
        fires = sql.SQL(moment), sql.SQL(_NOT_COPYING)
        of = sql.SQL(text).format(sql.Identifier(name), *fires, sql.SQL(function))
        ddl.run(of, table=table)


def triggers_of(table: str, column: str) -> tuple[tuple[str, str], ...]:
    """The triggers, by table, that keep one old column in step."""
    return MIRRORS.get((table, column), ())


def choices_view(ddl: OnlineDdl, of: str) -> sql.Composed:
    """The statement that makes the view which bears the old name of the table of choices.

    `of` is the name of the table whose columns it has: at present the old or the new one.
    """
    columns = [column.name for column in ddl.session.rows("columns", relation=of)]
    # As the caller: the table's own grants and row policies hold by either name.
    return sql.SQL("CREATE VIEW {}.{} WITH (security_invoker) AS SELECT {} FROM {}").format(
        sql.Identifier(ddl.session.row("schema_of", relation=of).name),
        sql.Identifier(OLD_CHOICES),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.Identifier(CHOICES),
    )


def drop_trigger(table: str, name: str) -> sql.Composed:
    """The statement that takes one trigger down."""
    return sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
        sql.Identifier(name), sql.Identifier(table)
    )


def drop_functions() -> tuple[sql.Composed, ...]:
    """The statements that take everything down that still stands."""
    return (
        *(drop_trigger(*each) for each in _TRIGGERS),
        *(sql.SQL("DROP FUNCTION IF EXISTS {}").format(each) for each in _signatures()),
    )


def _signatures() -> Iterator[sql.Composed]:
    for name, types in _FUNCTIONS.items():
        yield sql.SQL("memsync.{}({})").format(sql.Identifier(name), sql.SQL(types))


def _with_window(moment: str, redesign: Redesign) -> str:
    if not redesign.has_column("personalities", "context_window_size"):
        return moment
    return moment.replace("llm_config_id ON", "llm_config_id, context_window_size ON")
