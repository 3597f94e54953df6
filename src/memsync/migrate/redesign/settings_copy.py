"""Copies the settings from the old places into the new tables, and back.

This module decides what is copied in which direction, in batches that give way to clients. After a
rollback of contract that was cut short, the new tables fill the old places first.
"""

from collections.abc import Callable
from functools import partial
from uuid import UUID

from memsync.migrate.redesign.changes import SIZED, bring_back
from memsync.migrate.run import Run
from memsync.model.progress import Kind, Progress
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.settings_tables import DEFAULTS, SettingsTables
from memsync.stores.postgres import Session, statement
from memsync.stores.postgres.ddl import LockNotHad, OnlineDdl

_BATCH_ROWS = 500
_WINDOW = ("personalities", "context_window_size")


def restore_forks(ddl: OnlineDdl) -> None:
    """Insert the forks again that a rollback removed, and give them to those who had them."""
    session = ddl.session
    if not Catalog.read(session).settings.has_column(*_WINDOW):
        return

    def restore() -> None:
        kept = session.rows("kept_forks")
        if kept:
            columns = set.intersection(*(set(row.kept) for row in kept))
            bring_back(session, "llm_configs", statement("kept_forks"), columns)
        session.run("take_forks")
        session.run("take_chosen_forks")
        session.run("forget_forks")

    ddl.do(restore, table="llm_configs")


def size_configs(ddl: OnlineDdl) -> None:
    """Give each config the window of its personalities, once, if memsync made the column."""
    session, settings = ddl.session, Catalog.read(ddl.session).settings

    def size() -> None:
        session.run("size_configs")
        session.run("note_sized")

    if (
        "llm_configs.context_window_size" in settings.created
        and SIZED not in settings.created
        and settings.has_column(*_WINDOW)
    ):
        ddl.do(size, table="llm_configs")


def copy_settings(run: Run) -> None:
    """Copy the old columns into the new tables; rows that exist there stay, and win.

    After a rollback that was cut short the new tables win, because the old columns are not filled.
    """
    settings = run.catalog().settings
    returning = settings.is_halfway_out
    if settings.stands and not returning:
        return
    if settings.has_column("users", "global_persona_id"):
        run.tell(Progress(Kind.STEP, "copying the users' defaults"))
        _in_batches(run.ddl, "users", partial(_copy_defaults, run.session))
        if returning or DEFAULTS not in settings.created:
            _in_batches(run.ddl, "users", partial(_copy_defaults_back, run.session))
    if settings.has_column("personalities", "llm_config_id"):
        run.tell(Progress(Kind.STEP, "placing the personalities' configs"))
        _prepare_placing(run.ddl, settings, returning=returning)
        place = partial(run.session.run, "place_configs", limit=_BATCH_ROWS)
        while run.ddl.do(place, table="personalities"):
            pass


def copy_defaults_back(run: Run) -> None:
    """Fill the users' old column from the new table, on rollback."""
    run.tell(Progress(Kind.STEP, "copying the users' defaults back"))
    _in_batches(run.ddl, "users", partial(_copy_defaults_back, run.session))


def settle_sync(ddl: OnlineDdl) -> None:
    """Copy once more what a sync trigger left to another client whose transaction then failed."""
    session = ddl.session
    columns = set(Catalog.read(session).settings.old_columns)
    if ("users", "global_persona_id") in columns:
        ddl.do(partial(session.run, "settle_defaults"), table="users")
    if ("personalities", "llm_config_id") in columns:
        ddl.do(partial(session.run, "settle_configs"), table="personalities")
        if _WINDOW in columns:
            ddl.do(partial(session.run, "settle_windows"), table="personalities")


def _prepare_placing(ddl: OnlineDdl, settings: SettingsTables, *, returning: bool) -> None:
    """Give personalities the configs, with their windows, that the new table holds already."""
    run = ddl.session.run
    if not settings.has_column(*_WINDOW):
        ddl.do(partial(run, "take_placed"), table="personalities")
    elif returning:
        ddl.do(partial(run, "copy_configs_back"), table="personalities")
        ddl.do(partial(run, "restore_windows"), table="personalities")
    elif "llm_configs.context_window_size" not in settings.created:
        ddl.do(partial(run, "copy_configs_back"), table="personalities")
    else:
        ddl.do(partial(run, "take_placed"), table="personalities")
        ddl.do(partial(run, "settle_windows"), table="personalities")


def _copy_defaults(session: Session, after: UUID | None, limit: int) -> UUID | None:
    last: UUID | None = session.row("copy_defaults", after=after, limit=limit).last
    return last


def _copy_defaults_back(session: Session, after: UUID | None, limit: int) -> UUID | None:
    # Two statements, because the second sees what was written before the first had its locks.
    last: UUID | None = session.row("lock_users", after=after, limit=limit).last
    if last is not None:
        session.run("copy_defaults_back", after=after, last=last)
    return last


def _in_batches(
    ddl: OnlineDdl, table: str, copy: Callable[[UUID | None, int], UUID | None]
) -> None:
    after: UUID | None = None
    size = _BATCH_ROWS
    while True:
        try:
            with ddl.brief_transaction():
                ddl.session.run("pass_sync_triggers")
                last = copy(after, size)
        except LockNotHad:
            # A client holds one of the rows. Smaller steps meet fewer of those.
            size = max(1, size // 2)
            ddl.wait_turn(table)
            continue
        if last is None:
            return
        after = last
