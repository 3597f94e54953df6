"""The last step: persona_id must be there, user_id goes.

SET NOT NULL scans the table under ACCESS EXCLUSIVE unless a validated check already proves the
same; the check is dropped in a statement of its own, or the proof would not be used. Users of rows
whose persona is another's are archived first: the owner of its persona says the user of any other
row, which is the way back. Trigger and column go in one transaction: between them, rows of either
version of the app would be refused.
"""

from alembic import context

from memsync.stores.catalog import IDENTITY_TRIGGER, PRESENCE_CHECK, TABLE, Catalog
from memsync.stores.queries import statement

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make persona_id mandatory, archive what user_id alone says, drop user_id."""
    ddl = context.config.attributes["ddl"]
    catalog = Catalog.read(ddl.session, "the migration's session")
    if not catalog.columns["persona_id"]:
        if PRESENCE_CHECK not in catalog.constraints:
            ddl.run(
                f"ALTER TABLE conversation_history ADD CONSTRAINT {PRESENCE_CHECK}"
                " CHECK (persona_id IS NOT NULL) NOT VALID",
                table=TABLE,
            )
        ddl.run_long(f"ALTER TABLE conversation_history VALIDATE CONSTRAINT {PRESENCE_CHECK}")
        ddl.run("ALTER TABLE conversation_history ALTER persona_id SET NOT NULL", table=TABLE)
    ddl.run(
        f"ALTER TABLE conversation_history DROP CONSTRAINT IF EXISTS {PRESENCE_CHECK}", table=TABLE
    )
    if "user_id" in catalog.columns:
        ddl.run_long(statement("archive_exceptions"))
        # On its own: this one also locks users.
        ddl.run(
            "ALTER TABLE conversation_history"
            " DROP CONSTRAINT IF EXISTS conversation_history_user_id_fkey",
            table="users",
        )
        ddl.run(
            f"DROP TRIGGER IF EXISTS {IDENTITY_TRIGGER} ON conversation_history",
            "ALTER TABLE conversation_history DROP COLUMN user_id",
            table=TABLE,
        )
    ddl.run(
        "DROP FUNCTION IF EXISTS memsync.keep_identity()",
        "DROP FUNCTION IF EXISTS memsync.create_default_persona(uuid)",
        "DROP VIEW IF EXISTS memsync.persona_override, memsync.persona_default",
        table="users",
    )


def downgrade() -> None:
    """Refuse: the way back after this step rebuilds data, which a revision cannot."""
    raise NotImplementedError("user_id is rebuilt by the migration engine, not by a revision")
