"""Checks the history and what depends on it: what would break, be lost, or be in the way.

This module decides which of the app's own objects the migration cannot carry along. It reads the
catalog, and searches the text of functions, because Postgres does not track what their bodies use
(https://www.postgresql.org/docs/current/ddl-depend.html). No check here reads messages.
"""

from collections.abc import Iterable
from typing import Any

from memsync.errors import SchemaMismatch
from memsync.migrate import prisma
from memsync.migrate.checks import Check, blocker, fine, warning
from memsync.model.wording import count, listed
from memsync.stores.history.catalog import (
    PERSONA_CHECK,
    TABLE,
    USER_CHECK,
    USER_ID_INDEX,
    USER_INDEX,
    USER_KEY,
    Catalog,
)
from memsync.stores.history.phases import Phase
from memsync.stores.history.settings_tables import OLD_CHOICES, OLD_INDEXES
from memsync.stores.postgres import Session, relations

_OURS = (USER_ID_INDEX, USER_INDEX, USER_KEY, USER_CHECK, f"{TABLE}_user_id_not_null")
_KINDS = {"p": "partitioned", "v": "a view", "m": "a materialized view", "f": "a foreign table"}
_WRAPAROUND_NEAR = 0.9


def shape(session: Session, catalog: Catalog) -> Check:
    """Whether the history is one plain table, which the fill and the locks depend on."""
    found = session.row("preflight_shape")
    odd = None
    if found.kind != "r":
        odd = f"it is {_KINDS.get(found.kind, f'of kind {found.kind}')}"
    elif found.child or found.parent:
        odd = f"it {'inherits from another table' if found.child else 'has child tables'}"
    if odd:
        return blocker(
            "table",
            f"{TABLE}: {odd}; indexes cannot be built concurrently there, and a lock on one table "
            "does not lock the others",
            "make it one plain table first",
        )
    if found.hides_rows:
        return blocker(
            "table",
            f"row security of {TABLE} holds for this role: rows that it hides would not be filled",
            "connect as the owner (without FORCE ROW LEVEL SECURITY), or with BYPASSRLS",
        )
    if catalog.columns.get("user_id") is False and not catalog.users_return:
        return blocker(
            "table",
            f"user_id of {TABLE} may be NULL: for such a message nothing says who its user is, and "
            "so which persona spoke",
            f"give every message its user, then ALTER TABLE {TABLE} ALTER user_id SET NOT NULL",
        )
    if found.persistence == "u":
        return warning(
            "table", f"{TABLE} is unlogged: a crash of the server empties it", "SET LOGGED first"
        )
    return fine("table", f"{TABLE} is one plain table, no row of it hidden from this role")


def indexes(session: Session, catalog: Catalog, tables: Iterable[str]) -> Check:
    """Invalid indexes and constraints, as a build or a validation that was cut short leaves."""
    left = []
    for table in tables:
        known = catalog.indexes if table == TABLE else None
        standing = relations.indexes(session, table) if known is None else known
        left += [f"index {name} is INVALID" for name, valid in standing.items() if not valid]
        left += [
            f"constraint {name} of {table} is NOT VALID"
            for name, valid in relations.constraints(session, table).items()
            if not valid and name not in {PERSONA_CHECK, USER_CHECK}
        ]
    if not left:
        return fine("indexes", "all indexes and constraints are valid")
    return warning(
        "indexes",
        listed(left),
        "run rebuilds its own; others: DROP INDEX CONCURRENTLY and build again, or "
        "ALTER TABLE … VALIDATE CONSTRAINT",
    )


def dependents(session: Session, catalog: Catalog) -> Check:
    """Objects that make DROP COLUMN user_id fail, or that are dropped with it."""
    if "user_id" not in catalog.columns:
        return fine("user_id", "is gone already")
    rows = session.rows("preflight_dependents", relation=TABLE, column="user_id")
    strange = _not_ours(rows)
    if blocks := [row.what for row in strange if row.blocks]:
        return blocker(
            "user_id",
            f"contract cannot drop it while these use it: {listed(blocks)}",
            "let them use persona_id, or drop them; `--to backfill` runs without that",
            [Phase.CONTRACT],
        )
    if goes := [row.what for row in strange if row.name not in _OURS]:
        return warning(
            "user_id",
            f"contract drops these with it: {listed(goes)}",
            "build the same with persona_id after backfill, if it is needed",
        )
    return fine("user_id", "nothing of the app's own depends on it")


def settings(session: Session, catalog: Catalog) -> Check:
    """Objects that keep contract from dropping the settings' old places, or are dropped too."""
    blocks, goes = [], []
    for table, column in catalog.settings.old_columns:
        rows = session.rows("preflight_dependents", relation=table, column=column)
        standard = _standard_names(table, column)
        strange = [row for row in _not_ours(rows) if row.blocks or row.name not in standard]
        blocks += [f"{row.what} ({table}.{column})" for row in strange if row.blocks]
        goes += [f"{row.what} ({table}.{column})" for row in strange if not row.blocks]
    if catalog.settings.has_view(OLD_CHOICES):
        # Before the redesign it is a table, and what depends on it follows when it is renamed.
        rows = session.rows("preflight_dependents_of_view", relation=OLD_CHOICES)
        blocks += [f"{row.what} ({OLD_CHOICES})" for row in rows if row.blocks]
        goes += [f"{row.what} ({OLD_CHOICES})" for row in rows if not row.blocks]
    if blocks:
        return blocker(
            "old settings",
            f"contract cannot drop the old places of the settings while these use them: "
            f"{listed(blocks)}",
            "let them use the new tables of the settings, or drop them; `--to backfill` runs "
            "without that",
            [Phase.CONTRACT],
        )
    if goes:
        return warning(
            "old settings",
            f"contract drops these with the old places of the settings: {listed(goes)}",
            "build the same on the new tables after redesign, if it is needed",
        )
    return fine("old settings", "nothing of the app's own depends on them")


def _not_ours(rows: Iterable[Any]) -> list[Any]:
    return [row for row in rows if not (row.name or "").startswith("memsync_")]


def _standard_names(table: str, column: str) -> set[str]:
    """The names that the app's ORM and the server give to the objects of this one column."""
    named = {f"{table}_{column}_{suffix}" for suffix in ("idx", "key", "fkey", "not_null")}
    return named | {name for *place, name in OLD_INDEXES if place == [table, column]}


def triggers(session: Session, catalog: Catalog) -> Check:
    """Triggers of the app that read user_id, or fire for every row that is filled."""
    rows = session.rows("preflight_triggers")
    readers = [f"{row.name} ({row.function})" for row in rows if row.reads_user]
    if readers and "user_id" in catalog.columns:
        return blocker(
            "triggers",
            f"their functions read user_id, so each write would fail without it: {listed(readers)}",
            "rewrite them to use persona_id, or drop them; `--to backfill` runs without that",
            [Phase.CONTRACT],
        )
    if busy := [f"{row.name} ({row.function})" for row in rows if row.on_update]:
        return warning(
            "triggers",
            f"fire for every row that is filled: {listed(busy)}",
            "make sure that they can take it, or disable them during backfill",
        )
    named = listed(row.name for row in rows)
    return fine("triggers", f"{named}: none reads user_id or fires on UPDATE" if rows else "none")


def rules(session: Session) -> Check:
    """Rewrite rules, which change memsync's own statements too."""
    rows = session.rows("preflight_rules")
    if not rows:
        return fine("rules", "none")
    if changed := [row.name for row in rows if row.on_update]:
        return blocker("rules", f"they change what the fill does: {listed(changed)}", "drop them")
    return warning(
        "rules",
        f"rewrite rules of the app: {listed(row.name for row in rows)}",
        "make sure that they work with a new column, and without user_id",
    )


def functions(session: Session, catalog: Catalog) -> Check:
    """Functions that name the history's user_id, found by their text."""
    names = [row.name for row in session.rows("preflight_functions")]
    if not names or "user_id" not in catalog.columns:
        return fine("functions", "none names the history's user_id")
    return warning(
        "functions",
        f"their text names {TABLE} and user_id: {listed(names)}",
        "look at each before contract: one that reads user_id will fail when it is called",
    )


def grants(session: Session, catalog: Catalog) -> Check:
    """Grants on the column user_id alone, which persona_id does not inherit."""
    rows = session.rows("preflight_column_grants")
    if not rows or "user_id" not in catalog.columns:
        return fine("column grants", "none on user_id that persona_id lacks")
    wishes = "; ".join(f"GRANT {row.wanted} ON {TABLE} TO {row.role}" for row in rows)
    return warning(
        "column grants",
        "on user_id alone: " + listed(f"{row.role} ({row.rights})" for row in rows),
        f"after expand: {wishes}",
    )


def referrers(session: Session) -> Check:
    """Foreign keys that point at the history; a backfill by copy carries them over."""
    rows = session.rows("preflight_referrers")
    named = listed(f"{row.relation} ({row.name})" for row in rows)
    return fine("references", f"from {named}" if rows else "none from other tables")


def replication(session: Session) -> Check:
    """Logical replication of the history: it carries no DDL, and may fire no sync trigger.

    See https://www.postgresql.org/docs/current/logical-replication-restrictions.html
    """
    if names := [row.name for row in session.rows("preflight_subscriptions")]:
        return blocker(
            "logical replication",
            f"the subscription {listed(names)} writes the history: its rows do not fire the sync "
            "trigger",
            "migrate the publisher, or ALTER SUBSCRIPTION … DISABLE and drop it from there",
        )
    table = session.row("preflight_shape")
    published = session.rows("preflight_publications")
    if table.identity == "i" and table.identity_by_user:
        return blocker(
            "logical replication",
            "the replica identity is an index with user_id, which is dropped with the column",
            f"ALTER TABLE {TABLE} REPLICA IDENTITY DEFAULT",
            [Phase.CONTRACT],
        )
    if published:
        return warning(
            "logical replication",
            f"published by {listed(row.name for row in published)}; DDL is not carried along",
            "add persona_id at every subscriber before expand, drop user_id there after contract",
        )
    return _slots(session)


def _slots(session: Session) -> Check:
    slots = session.rows("preflight_slots")
    if idle := [row.name for row in slots if not row.active]:
        return warning(
            "logical replication",
            f"no reader uses {listed(idle)}: the server keeps all WAL of the run on disk for it",
            f"start its reader, or SELECT pg_drop_replication_slot('{idle[0]}')",
        )
    named = f"slots {listed(row.name for row in slots)}, all read" if slots else "none"
    return fine("logical replication", named)


def orm(session: Session) -> Check:
    """Whether Prisma's own history is one that `migrate resolve` can write."""
    try:
        known = prisma.require_known(session)
    except SchemaMismatch as error:
        return warning(
            "prisma", error.message, "a run does not need it; tell Prisma with its own command"
        )
    return fine("prisma", "its history is one that memsync knows" if known else "not used")


def vacuum(session: Session) -> Check:
    """A vacuum that does not give way: it holds up every ALTER TABLE until it ends.

    See https://www.postgresql.org/docs/current/routine-vacuuming.html#AUTOVACUUM
    """
    for row in session.rows("preflight_vacuum"):
        if not row.gives_way:
            return warning(
                "vacuum",
                f"pid {row.pid} vacuums {TABLE} and does not give way",
                "wait for it: see pg_stat_progress_vacuum",
            )
    found = session.row("preflight_shape")
    if found.xid_age > _WRAPAROUND_NEAR * found.xid_age_max:
        return warning(
            "vacuum",
            f"a vacuum against wraparound is near ({found.xid_age:,} of "
            f"{count(found.xid_age_max, 'transaction')}); it does not give way",
            f"VACUUM (FREEZE) {TABLE} before the run",
        )
    return fine("vacuum", "none that is in the way")
