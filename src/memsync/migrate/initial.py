"""Makes the schema that the migration leaves, in a database that has none of the app's tables.

It decides what counts as none: one table of these names is enough to be refused, because it is
another app's, or a legacy one. All is made in one transaction, under the lock of migrations, so
that of several processes one makes it, and a crash leaves nothing. `finished_schema.sql` has the
app's tables, the phase isolate memsync's own. It knows no vector store, but records in which layout
memories will lie: no app has written any yet.
"""

import re
from itertools import groupby
from urllib.parse import quote

from memsync.errors import SchemaMismatch
from memsync.model.wording import listed
from memsync.stores.history.catalog import (
    APP_TABLES,
    Catalog,
    own_schema_stands,
    require_server_version,
)
from memsync.stores.history.phases import Stage
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.record import Decision, record
from memsync.stores.postgres import Postgres, Session, relations, statements_of
from memsync.stores.postgres.locks import LockKey, exclusive

_FILE = "migrate/finished_schema.sql"
_OWN_FILE = "migrate/isolate/own_schema.sql"
_TABLE = re.compile(r"^CREATE TABLE (\w+)", re.MULTILINE)
_COLUMNS_MAX = 3
_ELSEWHERE = (
    "Nothing was made. Name an empty database, or give memsync a schema of its own: CREATE SCHEMA "
    "chat, and ?schema=chat at the end of postgres_url"
)


def init(postgres: Postgres, layout: Layout = Layout.SHARED) -> bool:
    """Make the finished schema, the app's tables and memsync's; False where it stands already.

    Where it makes the schema, it records that memories lie in this layout.

    Raises: SchemaMismatch for a legacy or half migrated app, which `memsync migrate` is for, and
    for other tables of these names; StoreBusy while a migration or another init runs;
    MissingRight; SettingsError behind a pooler. Effects: Postgres, all of it or nothing.
    """
    with exclusive(postgres, LockKey.MIGRATE, "migration") as session, session.transaction():
        require_server_version(session)
        if _stands(session, postgres.schema):
            return False
        # Looked for first: IF NOT EXISTS needs CREATE on the database even where the schema exists.
        if not own_schema_stands(session):
            session.run("create_own_schema")
        session.execute(*statements_of(_FILE), *statements_of(_OWN_FILE))
        record(session, Decision(layout, "memsync made the schema, so no app has written memories"))
        return True


def _stands(session: Session, schema: str | None) -> bool:
    """Whether the finished schema stands; False where nothing of it does.

    A second app beside another one is meant where the URL names its `schema`.

    Raises: SchemaMismatch for anything between the two.
    """
    names = [name for each in statements_of(_FILE) for name in _TABLE.findall(each)]
    there = {row.name: row.id for row in session.rows("standing_tables", names=names)}
    if not there:
        _require_place(session)
        if schema is None:
            _require_no_app_elsewhere(session)
        _require_no_records(session)
        return False
    if there.keys() >= set(APP_TABLES) and (stage := _stage(session)):
        if stage is Stage.CONTRACTED:
            return True
        raise SchemaMismatch(
            f"{session.label} has the app's tables already, and their history is {stage}: it is to "
            "be migrated, not made. `memsync migrate plan` says what is ahead; nothing was changed",
            stage=stage.value,
        )
    raise SchemaMismatch(
        f"{session.label} has some of the tables that init would make, and memsync did not make "
        f"them: {'; '.join(_differences(session, there, names))}. {_ELSEWHERE}",
        tables=sorted(there),
    )


def _stage(session: Session) -> Stage | None:
    """The stage of the app's migration; None where the tables are not the app's."""
    try:
        return Catalog.read(session).stage
    except SchemaMismatch:
        return None


def _require_place(session: Session) -> None:
    """Refuse to begin where CREATE TABLE would find no schema."""
    if not relations.search_path(session):
        raise SchemaMismatch(
            f"{session.label} has no schema for the tables: none that postgres_url or the role's "
            "search_path names exists. Nothing was made; CREATE SCHEMA first, or name another"
        )


def _require_no_app_elsewhere(session: Session) -> None:
    """Refuse a second set of tables beside an app that only the search path does not find."""
    schemas = [row.name for row in session.rows("apps_elsewhere")]
    if not schemas:
        return
    raise SchemaMismatch(
        f"{session.label} has an app already, in the schema {listed(schemas)}, which is not on the "
        f"search path ({listed(relations.search_path(session))}). Nothing was made. For that app "
        f"end postgres_url with ?schema={quote(schemas[0], safe='')}; for a second app CREATE "
        "SCHEMA and name its schema so",
        schemas=schemas,
    )


def _require_no_records(session: Session) -> None:
    if relations.existing(session, ("memsync.instance",)):
        raise SchemaMismatch(
            f"{session.label} has memsync's own tables, but none of the app's, which they tell of. "
            "Check postgres_url and its schema; or restore the app's tables; or, to begin anew, "
            "DROP SCHEMA memsync CASCADE. Nothing was made"
        )


def _differences(session: Session, there: dict[str, int], names: list[str]) -> list[str]:
    """The differences of the tables that are there, one text each.

    The server itself says what would be made: it makes the tables once more, as temporary ones,
    which go with this transaction.
    """
    session.run("make_them_temporary")
    session.execute(*statements_of(_FILE))
    others = session.rows("other_columns", names=list(there), ids=list(there.values()))
    said = []
    for table, columns in groupby(others, key=lambda each: each.relation):
        columns_said = [
            f"{each.name} is {each.found}, not {each.expected}"
            if each.found
            else f"{each.name} is missing"
            for each in columns
        ]
        said.append(f"{table} ({listed(columns_said, _COLUMNS_MAX)})")
    if not said:
        absent = [name for name in names if name not in there]
        said.append(f"{', '.join(sorted(there))}, without {listed(absent, _COLUMNS_MAX)}")
    return said
