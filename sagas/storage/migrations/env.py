"""Run by Alembic: migrate on the connection that `sagas.storage.schema.migrate` was given."""

from alembic import context

from sagas.storage.schema import wait_for_turn
from sagas.storage.tables import metadata
from sagas.storage.upgrade import (
    FIRST_AFTER,
    OLDER_VERSION_TABLE,
    VERSION_TABLE,
    has_newer_tables,
    has_older_tables,
    require_upgradable,
)

connection = context.config.attributes["connection"]
to = str(context.get_revision_argument())
# Up to there, the layout is one of version 0.1.0, which looks for its revision in a table of another name.
older = to < FIRST_AFTER and not has_newer_tables(connection)
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=OLDER_VERSION_TABLE if older else VERSION_TABLE,
)
with context.begin_transaction():
    wait_for_turn(connection, context.config.attributes["report"])
    if not older and has_older_tables(connection):
        require_upgradable(connection)
        connection.exec_driver_sql(f"""
            CREATE TABLE {VERSION_TABLE} (
                version_num varchar(32) NOT NULL,
                CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))""")
        connection.exec_driver_sql(
            f"INSERT INTO {VERSION_TABLE} (version_num) SELECT version_num FROM {OLDER_VERSION_TABLE}"
        )
    context.run_migrations()
