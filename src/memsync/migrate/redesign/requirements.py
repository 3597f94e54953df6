"""The requirements of the redesign: types, keys and columns that triggers and copies rely on.

If the app began the redesign itself, memsync completes it. If that is impossible, the requirements
that are not met are named before anything is changed. Reads only.
"""

from collections.abc import Iterator

from memsync.stores.history.settings_tables import (
    CHOICES,
    CONFIGS,
    DEFAULTS,
    OLD_CHOICES,
    SettingsTables,
)
from memsync.stores.postgres import Session

_TIME = "timestamp without time zone"
_TYPES = {
    ("users", "id"): "uuid",
    ("users", "global_persona_id"): "uuid",
    ("personas", "id"): "uuid",
    ("personas", "owner_id"): "uuid",
    ("personalities", "id"): "uuid",
    ("personalities", "llm_config_id"): "uuid",
    ("personalities", "context_window_size"): "integer",
    ("llm_configs", "id"): "uuid",
    ("llm_configs", "is_default"): "boolean",
    ("llm_configs", "owner_id"): "uuid",
    ("llm_configs", "is_global"): "boolean",
    ("llm_configs", "context_window_size"): "integer",
    (DEFAULTS, "user_id"): "uuid",
    (DEFAULTS, "persona_id"): "uuid",
    (DEFAULTS, "updated_at"): _TIME,
    (CONFIGS, "personality_id"): "uuid",
    (CONFIGS, "llm_config_id"): "uuid",
    (CONFIGS, "updated_at"): _TIME,
    **{
        (table, column): "uuid"
        for table in (CHOICES, OLD_CHOICES)
        for column in ("id", "user_id", "personality_id", "persona_id", "llm_config_id")
    },
}
_OPTIONAL = {
    ("users", "global_persona_id"),
    ("personalities", "llm_config_id"),
    ("personalities", "context_window_size"),
    ("llm_configs", "is_default"),
    ("llm_configs", "owner_id"),
    ("llm_configs", "is_global"),
    ("llm_configs", "context_window_size"),
}
_KEYS = {
    DEFAULTS: {"user_id"},
    CONFIGS: {"personality_id"},
    CHOICES: {"user_id", "personality_id"},
}


def unmet(session: Session, settings: SettingsTables) -> list[str]:
    """The requirements that are not met, in words."""
    names = [*{table for table, _ in _TYPES}]
    columns = {(c.relation, c.name): c for c in session.rows("columns_of", names=names)}
    there = {table for table, _ in columns}
    unique = session.rows("unique_keys", names=names)
    found = [*_not_tables(settings, there)]
    for (table, column), wanted in _TYPES.items():
        standing = columns.get((table, column))
        if standing is None:
            if table in there and (table, column) not in _OPTIONAL:
                found.append(f"{table} has no column {column}")
        elif not standing.type.startswith(wanted.split()[0]):
            found.append(f"{table}.{column} is {standing.type}, not {wanted}")
    for table in (DEFAULTS, CONFIGS, *([CHOICES] if OLD_CHOICES in there else [])):
        keys = [set(key.columns) for key in unique if key.relation == table and not key.partial]
        if table in there and _KEYS[table] not in keys:
            found.append(f"{table} is not unique by {', '.join(sorted(_KEYS[table]))}")
        source = OLD_CHOICES if table == CHOICES else table
        filled = {column for name, column in _TYPES if name == table}
        filled |= {column for name, column in columns if name == source != table}
        found += [
            f"{table}.{name} must have a value, but has no default"
            for (relation, name), column in columns.items()
            if relation == table and name not in filled and column.must_be_given
        ]
    if {CHOICES, OLD_CHOICES} <= there:
        lacking = {name for table, name in columns if table == OLD_CHOICES} - {
            name for table, name in columns if table == CHOICES
        }
        found += [f"{CHOICES} lacks {name} of {OLD_CHOICES}" for name in sorted(lacking)]
    if settings.has_column("personalities", "context_window_size"):
        found += _windows(settings)
        found += [
            f"llm_configs is unique by {', '.join(key.columns)}, so a config cannot be forked"
            for key in unique
            if key.relation == "llm_configs"
            and not key.partial
            and not {"id", "name"} & set(key.columns)
        ]
    return found


def _not_tables(settings: SettingsTables, there: set[str]) -> Iterator[str]:
    for name in (DEFAULTS, CONFIGS, CHOICES, OLD_CHOICES):
        ours = name == OLD_CHOICES and settings.has_view(name) and settings.created
        if name in there and not settings.has_table(name) and not ours:
            yield f"{name} is not an ordinary table"


def _windows(settings: SettingsTables) -> Iterator[str]:
    if not settings.has_column("personalities", "llm_config_id") and not settings.dropped:
        yield (
            "personalities has context_window_size but no llm_config_id: drop it once each "
            "config has its window, or add llm_config_id again"
        )
