"""Run by Alembic: migrate on the connection that `sagas.storage.schema.migrate` was given."""

from alembic import context

from sagas.storage.schema import VERSION_TABLE
from sagas.storage.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE)
with context.begin_transaction():
    # Two migrations at once (two pods starting) take turns; the second finds nothing left to do.
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('sagas migrate'))")
    context.run_migrations()
