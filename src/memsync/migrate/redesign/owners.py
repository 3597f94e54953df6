"""Personas without an owner (orphans): who owns them, decided and undone.

The one user who uses an orphan becomes its owner. If no user or several use it, the operator
decides, because a guess would hand one person's story to another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from memsync.errors import GateClosed, InvalidInput
from memsync.migrate.attribution import places
from memsync.migrate.options import RunOptions
from memsync.migrate.redesign.changes import bring_back
from memsync.model.wording import count, listed
from memsync.stores.history.catalog import TABLE, Catalog
from memsync.stores.history.settings_tables import CHOICES, DEFAULTS, OLD_CHOICES, SettingsTables
from memsync.stores.postgres import Session, composed, relations, sql, statement
from memsync.stores.postgres.ddl import OnlineDdl

_NAMED_MAX = 10


@dataclass(frozen=True, slots=True)
class Orphan:
    """A persona without an owner, and the users whose default or choice it is."""

    persona_id: UUID
    name: str
    users: tuple[UUID, ...]

    @property
    def owner(self) -> UUID | None:
        """The one user who uses it; None if no user or several do."""
        return self.users[0] if len(self.users) == 1 else None


def orphans(session: Session, settings: SettingsTables) -> list[Orphan]:
    """Every persona without an owner. Reads only."""
    rows = session.rows_with(places(settings), "orphan_personas")
    return [Orphan(row.id, row.name, tuple(row.users)) for row in rows]


def require_owners(session: Session, settings: SettingsTables, options: RunOptions) -> None:
    """Stop, before anything is changed, if the operator must decide the owner of a persona.

    Raises: GateClosed naming the personas, or those that cannot be quarantined; InvalidInput if the
    owner that was given is no user.
    """
    if (owner := options.assigned_owner) and not session.row("user_exists", user_id=owner).found:
        raise InvalidInput(f"orphan_owners: there is no user {owner}", field="orphan_owners")
    open_ones = [each for each in orphans(session, settings) if each.owner is None]
    if options.orphan_owners == "quarantine":
        _require_unreferred(session, open_ones)
    if not open_ones or options.for_orphans != "fail":
        return
    named = [f"{each.persona_id} ({count(len(each.users), 'user')})" for each in open_ones]
    raise GateClosed(
        f"{count(len(open_ones), 'persona has', 'personas have')} no owner, and not exactly one "
        f"user uses each: {listed(named, _NAMED_MAX)}. Give them an owner and type "
        f"`{options.command()}` again, or `{options.command(orphan_owners='quarantine')}`, or "
        "with `--orphan-owners assign:USER_ID`; nothing was changed",
        personas=[str(each.persona_id) for each in open_ones],
    )


def settle_owners(ddl: OnlineDdl, options: RunOptions) -> None:
    """Give every orphan its owner, or quarantine it, each in its own transaction.

    Raises: GateClosed under `fail`, or if rows refer to an orphan that is to be quarantined.
    """
    catalog = Catalog.read(ddl.session)
    require_owners(ddl.session, catalog.settings, options)
    for orphan in orphans(ddl.session, catalog.settings):
        owner = orphan.owner or options.assigned_owner
        decision = "derived" if orphan.owner else "assigned"
        if owner:
            give = partial(
                ddl.session.run,
                "give_owner",
                persona_id=orphan.persona_id,
                owner_id=owner,
                decision=decision,
            )
            ddl.do(give, table="personas")
        else:
            _quarantine(ddl, catalog, orphan)


def _quarantine(ddl: OnlineDdl, catalog: Catalog, orphan: Orphan) -> None:
    persona, session = orphan.persona_id, ddl.session

    def remove() -> dict[UUID, str]:
        session.run("lock_persona", persona_id=persona)
        if not (referred := rows_of(session, [persona])):
            session.run_with(places(catalog.settings), "quarantine_persona", persona_id=persona)
            session.run("remove_persona", persona_id=persona)
        return referred

    # The run looked before it began; these rows came since.
    if referred := ddl.do(remove, table="personas"):
        raise _not_quarantined(referred)


def _require_unreferred(session: Session, wanted: Sequence[Orphan]) -> None:
    if referred := rows_of(session, [each.persona_id for each in wanted]):
        raise _not_quarantined(referred)


def _not_quarantined(referred: Mapping[UUID, str]) -> GateClosed:
    """The refusal: these rows would be deleted or changed with it, and belong to somebody."""
    named = listed((f"{persona} ({rows})" for persona, rows in referred.items()), _NAMED_MAX)
    return GateClosed(
        f"{count(len(referred), 'persona')} without an owner cannot be quarantined, rows refer to "
        f"them: {named}. Give them an owner, or run again with `--orphan-owners assign:USER_ID`",
        personas=[str(persona) for persona in referred],
    )


def restore_orphans(ddl: OnlineDdl) -> None:
    """Undo the decisions about orphans: remove their owners, bring back quarantined personas.

    Runs when the settings are as they were before the redesign.
    """
    session, settings = ddl.session, Catalog.read(ddl.session).settings

    def restore() -> None:
        session.run("disown")
        kept = session.rows("kept_personas")
        if kept:
            columns = set.intersection(*(set(row.kept) for row in kept))
            bring_back(session, "personas", statement("kept_personas"), columns)
        if settings.has_column("users", "global_persona_id"):
            session.run("restore_defaults")
        if settings.has_table(DEFAULTS):
            session.run("restore_new_defaults")
        if settings.has_table(OLD_CHOICES):
            session.run("restore_choices")
        if settings.has_table(CHOICES):
            session.run("restore_new_choices")
        session.run("forget_orphans")

    ddl.do(restore, table="personas")


def rows_of(session: Session, personas: Sequence[UUID]) -> dict[UUID, str]:
    """The rows of the app's other tables that refer to each persona, in words; most have none.

    The tables of the settings are left out, because they only say who uses it.
    """
    if not personas:
        return {}
    known = ["users", DEFAULTS, CHOICES, OLD_CHOICES, TABLE]
    columns = [
        (each.relation, each.column) for each in session.rows("referrers_of_personas", known=known)
    ]
    if "persona_id" in relations.columns(session, TABLE):
        columns.insert(0, (TABLE, "persona_id"))
    found: dict[UUID, list[str]] = {}
    for relation, column in columns:
        counting = composed(
            "count_referring_rows",
            relation=sql.SQL(relation),
            column=sql.Identifier(column),
            personas=sql.Literal([str(each) for each in personas]),
        )
        name = "messages" if relation == TABLE else f"{relation}.{column}"
        for row in session.connection.execute(counting).fetchall():
            found.setdefault(row.persona_id, []).append(f"{row.total:,} of {name}")
    return {persona: ", ".join(rows) for persona, rows in found.items()}
