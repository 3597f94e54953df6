"""Alembic's entry: runs a revision on the session that holds the migration's lock.

The session is in autocommit, because a phase decides where its transactions begin and end. Every
phase reads the catalog first, so running it again after a crash is harmless.
"""

from alembic import context

from memsync.migrate.revisions import lent_connection

context.configure(
    connection=lent_connection(),
    version_table="alembic_version",
    version_table_schema="memsync",
    transactional_ddl=False,
)
with context.begin_transaction():
    context.run_migrations()
