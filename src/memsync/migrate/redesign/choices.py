"""The table of choices gets its new name, and a view bears the old one.

Decides what becomes of the old table where the app had made the new one beside it: its rows go
over, and it is put aside for the way back.
"""

from memsync.migrate.redesign.changes import MERGED, RENAMED, noted, unnoted
from memsync.stores.history.settings_tables import CHOICES, OLD_CHOICES, SettingsTables
from memsync.stores.postgres import Statement, composed, grants, relations, sql, statement
from memsync.stores.postgres.ddl import OnlineDdl


def rename_choices(ddl: OnlineDdl, settings: SettingsTables) -> None:
    """Give the table of choices its new name, and leave a view that bears the old one.

    Where the app made the new table beside the old one, the rows of the old one go over, and it is
    put aside.
    """
    if not settings.has_table(OLD_CHOICES):
        return
    move: list[Statement]
    if settings.has_table(CHOICES):
        how = MERGED
        merge = _merge_choices(ddl)
        # Most rows go over before anybody is locked out; the rest under the lock.
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
    """Give the table of choices its old name, or bring back the one that was put aside."""
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
    """The statement that makes the view which bears the old name of the table of choices.

    `of` is the name of the table whose columns it has: at present the old or the new one.
    """
    columns = map(sql.Identifier, relations.columns(ddl.session, of))
    return composed(
        "create_choices_view",
        schema=relations.schema_of(ddl.session, of),
        columns=sql.SQL(", ").join(columns),
    )


def _merge_choices(ddl: OnlineDdl) -> sql.Composed:
    """The statement that copies what only the old table of choices holds."""
    old = relations.columns(ddl.session, OLD_CHOICES)
    names = [c for c in relations.insertable_columns(ddl.session, CHOICES) if c in old]
    return composed("merge_choices", columns=sql.SQL(", ").join(map(sql.Identifier, names)))


def _renamed(ddl: OnlineDdl, old: str, new: str, *, standing: str) -> list[sql.Composed]:
    """The statements that give indexes and constraints the names that go with their table's.

    They run while the table bears the new one of its two names.
    """
    statements = []
    for each in ddl.session.rows("named_after", relation=standing, prefix=f"{old}_"):
        was, will_be = sql.Identifier(each.name), sql.Identifier(new + each.name.removeprefix(old))
        if each.kind == "index":
            statements.append(composed("rename_choices_index", old=was, new=will_be))
        else:
            statements.append(composed("rename_choices_constraint", old=was, new=will_be))
    return statements
