"""The table of choices gets its new name, and a view keeps the old one.

If the app made the new table itself, beside the old one, the rows of the old one are merged into
it. The old table then moves to the schema memsync, for a rollback.
"""

from memsync.migrate.redesign.changes import MERGED, RENAMED, noted, unnoted
from memsync.stores.history.settings_tables import CHOICES, OLD_CHOICES, SettingsTables
from memsync.stores.postgres import Statement, composed, grants, relations, sql, statement
from memsync.stores.postgres.ddl import OnlineDdl


def rename_choices(ddl: OnlineDdl, settings: SettingsTables) -> None:
    """Give the table of choices its new name, and create a view with the old one.

    If the app made the new table beside the old one, the old one is merged into it and put aside.
    """
    if not settings.has_table(OLD_CHOICES):
        return
    move: list[Statement]
    if settings.has_table(CHOICES):
        how = MERGED
        merge = _merge_choices(ddl)
        # Most rows are copied before the lock is taken, and the rest under it.
        ddl.session.execute(merge)
        move = [statement("lock_choices"), merge, statement("put_choices_aside")]
    else:
        how = RENAMED
        names = _renamed(ddl, OLD_CHOICES, CHOICES, standing=OLD_CHOICES)
        move = [statement("rename_choices"), *names]
    ddl.run(
        *move,
        choices_view(ddl, OLD_CHOICES),
        *grants.like(ddl, OLD_CHOICES, OLD_CHOICES),
        noted(how, "created"),
        table=OLD_CHOICES,
    )


def rename_choices_back(ddl: OnlineDdl, settings: SettingsTables) -> None:
    """Give the table of choices its old name, or bring back the table that was put aside."""
    if RENAMED in settings.created:
        ddl.run(
            statement("drop_choices_view"),
            *_renamed(ddl, CHOICES, OLD_CHOICES, standing=CHOICES),
            statement("rename_choices_back"),
            unnoted(RENAMED),
            table=CHOICES,
        )
    if MERGED in settings.created:
        ddl.run(
            statement("drop_choices_view"),
            statement("forget_removed_choices"),
            composed("bring_choices_back", schema=relations.schema_of(ddl.session, CHOICES)),
            unnoted(MERGED),
            table=CHOICES,
        )


def choices_view(ddl: OnlineDdl, of: str) -> sql.Composed:
    """The statement that creates the view with the old name of the table of choices.

    `of` is the table whose columns the view has: the table of choices by its present name.
    """
    columns = map(sql.Identifier, relations.columns(ddl.session, of))
    return composed(
        "create_choices_view",
        schema=relations.schema_of(ddl.session, of),
        columns=sql.SQL(", ").join(columns),
    )


def _merge_choices(ddl: OnlineDdl) -> sql.Composed:
    """The statement that copies the choices that only the old table holds."""
    old = relations.columns(ddl.session, OLD_CHOICES)
    names = [c for c in relations.insertable_columns(ddl.session, CHOICES) if c in old]
    return composed("merge_choices", columns=sql.SQL(", ").join(map(sql.Identifier, names)))


def _renamed(ddl: OnlineDdl, old: str, new: str, *, standing: str) -> list[sql.Composed]:
    """The statements that rename indexes and constraints from the prefix `old` to `new`.

    `standing` is the table's present name. They run while it has the name CHOICES.
    """
    statements = []
    for each in ddl.session.rows("named_after", relation=standing, prefix=f"{old}_"):
        was, will_be = sql.Identifier(each.name), sql.Identifier(new + each.name.removeprefix(old))
        if each.kind == "index":
            statements.append(composed("rename_index", old=was, new=will_be))
        else:
            statements.append(composed("rename_choices_constraint", old=was, new=will_be))
    return statements
