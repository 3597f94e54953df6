"""Translates the failures of psycopg into memsync's errors.

One table says which error each of the driver's means. A connection that was refused carries no
SQLSTATE, so its meaning is read from the server's message; a message in another language means
"does not answer". Every error of the driver is translated, so a caller sees memsync's only.
"""

import contextlib
import re
from collections.abc import Iterator

import psycopg
from psycopg import errors
from psycopg_pool import PoolClosed, PoolTimeout

from memsync.errors import (
    GateClosed,
    InvalidInput,
    MemsyncError,
    MissingRight,
    SchemaMismatch,
    SettingsError,
    StoreBusy,
    StoreUnreachable,
)

_QUOTING = (psycopg.IntegrityError, psycopg.DataError, errors.RaiseException)

_Drivers = tuple[type[psycopg.Error], ...]

# The first match wins; {why} is the server's message.
_MEANINGS: tuple[tuple[_Drivers, type[MemsyncError], str], ...] = (
    (
        (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName),
        SchemaMismatch,
        "{label} is not at the schema this needs: {why}. See `memsync migrate plan`",
    ),
    (
        (errors.DependentObjectsStillExist,),
        GateClosed,
        "another object depends on one that this step drops at {label}: {why}. Drop it first, and "
        "run again",
    ),
    ((errors.WrongObjectType,), SchemaMismatch, "{label} is not as memsync knows it: {why}"),
    (
        (errors.InsufficientPrivilege,),
        MissingRight,
        "the role may not do this at {label}: {why}. Grant it (`memsync help operate` lists what a "
        "role needs), or connect as the owner of the tables; where a policy hides rows, as a role "
        "with BYPASSRLS",
    ),
    (
        (errors.ObjectNotInPrerequisiteState, errors.InvalidColumnReference),
        GateClosed,
        "{label} refuses the statement: {why}. Where a publication is the reason, `memsync migrate "
        "plan` says what to do; then run again",
    ),
    (
        (errors.ReadOnlySqlTransaction,),
        SchemaMismatch,
        "{label} takes no writes, not even temporary ones: {why}. Connect to the primary; if this "
        "is the primary, the role or the database sets default_transaction_read_only, which "
        "memsync does not override",
    ),
    (
        (errors.ForeignKeyViolation,),
        InvalidInput,
        "a value refers to something that does not exist: {why}. Nothing was written",
    ),
    (
        (psycopg.IntegrityError,),
        InvalidInput,
        "a rule of the database refuses this: {why}. Nothing was written",
    ),
    (
        (errors.RaiseException,),
        InvalidInput,
        "a trigger or function of the database refuses this: {why}. Nothing was written",
    ),
    (
        (errors.CharacterNotInRepertoire, errors.UntranslatableCharacter),
        InvalidInput,
        "{label} and the text do not agree on an encoding: {why}. A database in another encoding "
        "than UTF8 cannot store every text, and one in SQL_ASCII may hold bytes that are no text",
    ),
    ((psycopg.DataError,), InvalidInput, "a value does not fit: {why}. Nothing was written"),
    (
        (
            errors.ObjectInUse,
            errors.LockNotAvailable,
            errors.DeadlockDetected,
            errors.SerializationFailure,
            errors.QueryCanceled,
        ),
        StoreBusy,
        "{label} is busy: {why}. Run again",
    ),
    (
        (
            errors.AdminShutdown,
            errors.CrashShutdown,
            errors.IdleSessionTimeout,
            errors.IdleInTransactionSessionTimeout,
            errors.TransactionTimeout,
        ),
        StoreUnreachable,
        "{label} ended the session: {why}. Committed work is kept; run again once it answers",
    ),
    (
        (errors.DiskFull,),
        StoreUnreachable,
        "the disk of {label} is full: {why}. Committed work is kept; make room, run again",
    ),
    (
        (
            errors.InsufficientResources,
            errors.OutOfMemory,
            errors.TooManyConnections,
            errors.ConfigurationLimitExceeded,
        ),
        StoreUnreachable,
        "{label} has no resources left for this: {why}. Committed work is kept; raise the limit "
        "that the message names, and run again",
    ),
    (
        (errors.ProgramLimitExceeded,),
        InvalidInput,
        "a value is larger than {label} can hold: {why}. Nothing was written",
    ),
    (
        (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement),
        StoreBusy,
        "{label} lost a prepared statement: {why}. A pooler shares its sessions between clients; "
        "set postgres_pooler = yes, or connect directly",
    ),
    (
        (psycopg.OperationalError, psycopg.InterfaceError),
        StoreUnreachable,
        "{label} does not answer: {why}. Check that it runs and that postgres_url is right",
    ),
    (
        (psycopg.Error,),
        MemsyncError,
        "{label} refused a statement of memsync: {why}. This is an error of memsync; report it "
        "with this message",
    ),
)

_OF_MIGRATION = re.compile(r'relation "(memsync\.\w+)"|column (?:"|\w+\.)(persona_id)\b')
"""What the server says where a table or column is missing that the migration makes."""

# How a refused connection is told: libpq gives its text and nothing else.
_REFUSALS: tuple[tuple[str, type[MemsyncError], str], ...] = (
    (
        "too many clients|connection slots|too many connections|no more connections",
        StoreUnreachable,
        "{label} accepts no more connections: {why}. Close some, lower pool_connections of its "
        "clients, or raise max_connections",
    ),
    (
        "password|authentication failed",
        SettingsError,
        "{label} does not accept the login: {why}. Check user and password in postgres_url, or "
        "the file that PGPASSFILE names",
    ),
    (
        'database ".*" does not exist',
        SettingsError,
        "the server of {label} has no such database: {why}. Check the name behind the last / of "
        "postgres_url",
    ),
    (
        'role ".*" (does not exist|is not permitted to log in)',
        SettingsError,
        "{label} does not know the role: {why}. Check the user in postgres_url",
    ),
    (
        "pg_hba.conf|permission denied for database|not currently accepting connections",
        MissingRight,
        "{label} does not let this role in: {why}. Its pg_hba.conf or the grants of the database "
        "decide that",
    ),
    (
        "resolve host|translate host name",
        StoreUnreachable,
        "the host of {label} has no address: {why}. Check the host in postgres_url",
    ),
    (
        "starting up|shutting down|in recovery|hot standby",
        StoreUnreachable,
        "{label} is starting or stopping: {why}. Try again in a moment",
    ),
    (
        "certificate|SSL|GSSAPI",
        SettingsError,
        "{label} and postgres_url do not agree on encryption: {why}. Check sslmode and the files "
        "of certificates",
    ),
    (
        "definition of service|service file|connection is bad: .*(invalid|not supported)"
        "|unsupported startup|unrecognized",
        SettingsError,
        "{label} cannot be used as postgres_url says: {why}",
    ),
)


@contextlib.contextmanager
def translated(label: str) -> Iterator[None]:
    """Turn the driver's errors into memsync's."""
    try:
        yield
    except PoolClosed:
        raise StoreUnreachable(f"{label} is closed; open it again to use it") from None
    except PoolTimeout as error:
        raise StoreUnreachable(f"no connection to {label}: {error}") from None
    except psycopg.Error as error:
        if missing := _not_migrated(error):
            raise SchemaMismatch(
                f"{label} is not migrated: it has no {missing}. `memsync migrate plan` says what "
                "is ahead; the tables of a new app are made by `memsync init`"
            ) from error
        for drivers, ours, text in _MEANINGS:
            if isinstance(error, drivers):
                told = ours(text.format(label=label, why=reason(error)))
                # The driver's own message may quote a row, and with it what somebody said.
                raise told from None if isinstance(error, _QUOTING) else error
        raise


def _not_migrated(error: psycopg.Error) -> str | None:
    """The name of what is missing, where the migration makes it; else None."""
    if not isinstance(error, errors.UndefinedTable | errors.UndefinedColumn):
        return None
    found = _OF_MIGRATION.search(reason(error))
    return found and (found[1] or found[2])


@contextlib.contextmanager
def connecting(label: str) -> Iterator[None]:
    """As `translated`, for a connection that is being made: a refusal is told by its cause.

    Raises: StoreUnreachable, SettingsError, MissingRight.
    """
    with translated(label):
        try:
            yield
        except psycopg.OperationalError as error:
            why = reason(error)
            for pattern, ours, text in _REFUSALS:
                if re.search(pattern, why):
                    raise ours(text.format(label=label, why=why)) from None
            raise
        except psycopg.ProgrammingError as error:
            raise SettingsError(
                f"postgres_url cannot be used: {reason(error)}", field="postgres_url"
            ) from None


def reason(error: psycopg.Error) -> str:
    """The first line of the server's message, or of the driver's."""
    said = error.diag.message_primary or str(error)
    if isinstance(error, errors.ForeignKeyViolation | errors.DependentObjectsStillExist):
        said = error.diag.message_detail or said
    return (said.strip().splitlines() or [type(error).__name__])[0].rstrip(".")
