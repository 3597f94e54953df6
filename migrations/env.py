"""Alembic's entry: runs the revisions on the connection that the migration engine hands over.

The engine holds its lock on that very connection, which is in autocommit: every statement of a
revision is its own transaction or opens one, and every revision reads the catalog first, so that
running it again after a crash is harmless.
"""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("these revisions are run by `memsync migrate run`, not by alembic itself")

context.configure(
    connection=connection,
    version_table="alembic_version",
    version_table_schema="memsync",
    transactional_ddl=False,
)
with context.begin_transaction():
    context.run_migrations()
