"""What reading by persona needs: two indexes and the foreign key, built after the fill.

Built before it, every filled row would pay for them. Locks: the indexes let readers and writers
pass; the key is added NOT VALID (SHARE ROW EXCLUSIVE on both tables, for a moment) and validated
on its own (readers and writers pass).
"""

from alembic import context

from memsync.stores.history.catalog import (
    PERSONA_INDEX,
    PERSONA_INDEXES,
    PERSONA_KEY,
    RETRIEVAL_INDEX,
    TABLE,
    Catalog,
)

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Build what is missing or INVALID."""
    ddl = context.config.attributes["ddl"]
    for name, columns in PERSONA_INDEXES.items():
        # lint: allow UNREADABLE the columns are the catalog's own text
        build = f"CREATE INDEX CONCURRENTLY {name} ON conversation_history {columns}"
        ddl.index(name, build, table=TABLE)
    if not Catalog.read(ddl.session).constraints.get(PERSONA_KEY):
        ddl.foreign_key(TABLE, "persona_id", "personas")
        # From here on the key refuses new strays; those of the time before it go first.
        context.config.attributes["steps"]["clear_vanished"](ddl)
        ddl.validate(TABLE, PERSONA_KEY)


def downgrade() -> None:
    """Drop the key and the indexes."""
    ddl = context.config.attributes["ddl"]
    ddl.run(
        f"ALTER TABLE conversation_history DROP CONSTRAINT IF EXISTS {PERSONA_KEY}", table=TABLE
    )
    ddl.run_long(f"DROP INDEX CONCURRENTLY IF EXISTS {RETRIEVAL_INDEX}")
    ddl.run_long(f"DROP INDEX CONCURRENTLY IF EXISTS {PERSONA_INDEX}")
