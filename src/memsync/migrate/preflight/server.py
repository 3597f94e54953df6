"""Checks the server and this session: privileges, disk, other transactions, standbys, settings.

This module decides which tables a run needs, and how far behind a standby may be. history.py knows
the structure of the history, and backfill/disk.py how much disk each method needs.
"""

from memsync.migrate.backfill.disk import disk_space
from memsync.migrate.checks import Check, blocker, fine, warning
from memsync.model.wording import count, listed, size
from memsync.stores.history import settings_tables
from memsync.stores.history.catalog import TABLE
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Session, relations
from memsync.stores.postgres.pooler import processes

TABLES = (TABLE, "users", "personas", "personalities")
"""The tables that every phase reads or changes."""
_CHANGED = [TABLE, *settings_tables.TABLES]
"""The tables that a run reads or changes, where they exist."""
_LIFTED = (
    "statement_timeout",
    "lock_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
)
LAG_S = 10.0
"""Replicas that are further behind than this should catch up first."""


def server(session: Session) -> Check:
    """The server's version, and whether it takes writes at all."""
    found = session.row("preflight_server")
    version = f"PostgreSQL {found.version}"
    if found.standby:
        return blocker("server", f"{version}, a standby: read only", "connect to the primary")
    if found.read_only:
        return blocker(
            "server",
            f"{version}; default_transaction_read_only is on for this role or database",
            "connect as another role, or ALTER ROLE … RESET default_transaction_read_only",
        )
    if not found.autovacuum:
        return warning(
            "server",
            f"{version}; autovacuum or track_counts is off",
            "switch them on: the fill leaves dead rows, and clients' plans rest on statistics",
        )
    return fine("server", version)


def pooler(session: Session) -> Check:
    """Whether a pooler is in between: session locks and SET do not hold there."""
    promised, serving = processes(session)
    if promised != serving:
        return blocker(
            "pooler",
            f"a pooler is in between: the session was told pid {promised}, its server process is "
            f"{serving}",
            "give postgres_url the server's own address: the migration's lock lives in a session",
        )
    return fine("pooler", f"none: the server process of this session is {serving}")


def privileges(session: Session) -> Check:
    """Whether this role may do all that the phases do."""
    grants = session.row("preflight_grants")
    owners = session.rows("preflight_owners", names=_CHANGED)
    by_name = {row.name: row for row in owners}
    history = by_name[TABLE]
    missing = []
    if not grants.schema_ours:
        what = "SCHEMA memsync" if grants.there else f"DATABASE {grants.database}"
        missing.append(f"GRANT {'ALL' if grants.there else 'CREATE'} ON {what} TO {grants.role}")
    if not history.owned:
        missing.append(f"GRANT {history.owner} TO {grants.role}")
    if not history.may_create:
        missing.append(f"GRANT CREATE ON SCHEMA {history.schema} TO {grants.role}")
    missing += [
        f"GRANT REFERENCES ON {name} TO {grants.role}"
        for name in ("personas", "users")
        if not by_name[name].may_refer
    ]
    if missing:
        return blocker(
            "privileges", f"{grants.role} lacks grants that a run needs", "; ".join(missing)
        )
    if strange := [row for row in owners if not row.owned]:
        named = listed(f"{row.name} is {row.owner}'s" for row in strange)
        return blocker(
            "privileges",
            f"{grants.role} does not own every table of the redesign: {named}",
            f"run as their owner, or GRANT {strange[0].owner} TO {grants.role}",
            [Phase.REDESIGN, Phase.CONTRACT],
        )
    return fine("privileges", f"{grants.role} owns every table, and may make the schema memsync")


def visibility(session: Session) -> Check:
    """Whether this role sees the sessions that may be in the way."""
    grants = session.row("preflight_grants")
    if grants.sees_others:
        return fine("visibility", "the queries of other sessions can be seen")
    return warning(
        "visibility",
        f"{grants.role} does not see what other sessions do: checks of transactions and replicas "
        "may miss some",
        f"GRANT pg_read_all_stats TO {grants.role}",
    )


def disk(session: Session) -> Check:
    """Whether the disk has enough space, where that can be known from here."""
    has = disk_space(session)
    found = (
        f"table {size(has.table_bytes)}, indexes {size(has.index_bytes)}; in place needs "
        f"{size(has.in_place_bytes)}, a copy {size(has.copy_bytes)}, each with "
        f"{size(has.wal_bytes)} of WAL"
    )
    free = has.free_bytes
    if free is None:
        return fine("disk", f"{found}; the free space is not known from here")
    found += f"; {size(free)} free"
    if free < has.in_place_bytes:
        return blocker("disk", found, f"free {size(has.in_place_bytes - free)} more, at least")
    if free < has.copy_bytes:
        lacks = size(has.copy_bytes - free)
        return warning("disk", found, f"enough for in place only; a copy lacks {lacks}")
    return fine("disk", found)


def transactions(session: Session, older_s: float) -> Check:
    """Transactions that have been open for long: index builds wait for them, and locks may."""
    rows = session.rows("preflight_transactions", older_s=older_s)
    if not rows:
        return fine("transactions", f"none is open for more than {older_s:.0f} s")
    named = [f"pid {row.pid} ({row.state}, {row.open_s:.0f} s): {row.query}" for row in rows]
    return warning(
        "transactions",
        f"{count(len(rows), 'is', 'are')} open for more than {older_s:.0f} s: {listed(named)}",
        "end them, or the run waits: "
        + "; ".join(f"SELECT pg_terminate_backend({row.pid})" for row in rows[:3]),
    )


def prepared(session: Session) -> Check:
    """Prepared transactions, which hold their locks until somebody ends them."""
    rows = session.rows("preflight_prepared", names=_CHANGED)
    if not rows:
        return fine("prepared transactions", "none")
    named = [
        f"{row.gid} of {row.owner} ({row.open_s:.0f} s"
        + (f", holds locks on {', '.join(row.locked)})" if row.locked else ")")
        for row in rows
    ]
    say = blocker if any(row.locked for row in rows) else warning
    return say(
        "prepared transactions",
        f"{len(rows)}: {listed(named)}",
        f"COMMIT PREPARED or ROLLBACK PREPARED each, such as '{rows[0].gid}'",
    )


def replicas(session: Session) -> Check:
    """Standbys, and how far behind they are: what the run writes comes to them too."""
    found = session.row("preflight_replicas")
    if not found.replicas:
        return fine("replicas", "none")
    said = f"{found.replicas}, the last of them {found.lag_s:.1f} s behind"
    if found.lag_s > LAG_S:
        return warning("replicas", said, "wait until they have caught up; the fill adds to it")
    return fine("replicas", said)


def commits(session: Session) -> Check:
    """Whether a commit waits for a synchronous standby that is away.

    See https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION
    """
    found = session.row("preflight_commits")
    if not found.names or found.level in {"off", "local"}:
        return fine("synchronous commit", "no commit waits for a standby")
    if not found.seen:
        return fine("synchronous commit", "this role does not see which standbys are connected")
    if found.connected >= found.wanted:
        return fine("synchronous commit", f"{found.connected} synchronous standbys are connected")
    return blocker(
        "synchronous commit",
        f"synchronous_standby_names is {found.names}, and of {found.wanted} such standbys "
        f"{found.connected} are connected: every commit waits for ever",
        "bring the standby back, or ALTER SYSTEM SET synchronous_standby_names and reload; or "
        "SET synchronous_commit = local for the role of the run",
    )


def publications(session: Session) -> Check:
    """Tables that are published in a way in which no row of them can be updated or deleted.

    An app that only inserts never notices. Views are left out, because the server refuses their
    updates for other reasons. See
    https://www.postgresql.org/docs/current/logical-replication-publication.html
    """
    standing = session.rows("preflight_owners", names=_CHANGED)
    asked = {
        row.name: relations.refused_write(session, row.name) for row in standing if row.is_table
    }
    refused = {name: why for name, why in asked.items() if why}
    if not refused:
        return fine("publications", "none keeps a table from being updated")
    mend = (
        "give each a replica identity that its publications carry whole, such as ALTER TABLE "
        f"{next(iter(refused))} REPLICA IDENTITY DEFAULT where it has a primary key"
    )
    if by := session.rows("preflight_published", names=list(refused)):
        mend += "; or publish no updates and deletes until the run is over: "
        mend += "; ".join(f"ALTER PUBLICATION {row.name} SET (publish = 'insert')" for row in by)
    return blocker(
        "publications",
        f"the server refuses what a run does: {listed(refused.values(), separator='; ')}",
        mend,
    )


def limits(session: Session) -> Check:
    """Timeouts of this role, which a run lifts, and roles whose rows fire no sync trigger.

    A client under session_replication_role = replica fires no ordinary trigger: see
    https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-SESSION-REPLICATION-ROLE
    """
    names = [*_LIFTED, "session_replication_role"]
    rows = session.rows("preflight_limits", names=names)
    silent = [row.whose for row in rows if row.name not in _LIFTED and row.value == "replica"]
    if silent:
        return warning(
            "settings",
            f"session_replication_role is replica for {listed(silent)}: rows written "
            "under it do not fire the sync trigger, and stay without a persona until the next run",
            f"ALTER {silent[0]} RESET session_replication_role, or keep it from writing",
        )
    ours = [f"{row.name} = {row.value} (of {row.whose})" for row in rows if row.ours]
    if ours:
        return fine("settings", f"lifted for the run: {listed(ours)}")
    return fine("settings", "no timeouts are set for this role or database")


def event_triggers(session: Session) -> Check:
    """Event triggers, which may refuse memsync's DDL."""
    names = [row.name for row in session.rows("preflight_event_triggers")]
    if not names:
        return fine("event triggers", "none")
    return warning(
        "event triggers",
        f"{listed(names)} may inspect memsync's DDL, and refuse it",
        "make sure that they let CREATE SCHEMA, ALTER TABLE and CREATE INDEX pass",
    )
