"""What the doctor asks the database server; about sagas it asks `sagas.inspection`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from sagas.storage.postgres.dsn import STILL_CHANGED, make_engine
from sagas.storage.schema import check_version, current_version
from sagas.storage.tables import metadata
from sagas.urls import address

#: Shorter than a check may take, so that the server stops a slow statement and the check can report it.
STATEMENT_SECONDS: Final = 4.0
_BEGIN: Final = "SET TRANSACTION READ ONLY"
_BOUND: Final = "SELECT set_config('statement_timeout', %(milliseconds)s, true)"

_SERVER: Final = """
SELECT current_setting('server_version') AS version, quote_ident(current_user) AS "user",
    pg_is_in_recovery() AS in_recovery, current_setting('default_transaction_read_only') AS read_only,
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit"""

# A list of privileges in one has_table_privilege would ask whether the user has any of them.
_ACCESS: Final = """
SELECT name, row_security_active(name) AS rows_hidden, ARRAY(
    SELECT privilege FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
    WHERE NOT has_table_privilege(name, privilege)) AS missing
FROM unnest(CAST(%(tables)s AS text[])) AS name
WHERE to_regclass(name) IS NOT NULL
ORDER BY name"""

#: A row, by the names of its columns.
Row = Mapping[str, Any]


class Server:
    """Asks the server of one database.

    Each question has a connection of its own, so that a check that hangs blocks no later one.

    Args:
        url: of the database.
        statement_seconds: after how long the server stops a statement.

    Raises:
        ConfigurationError: the URL cannot be used.
        DBAPIError: from every method, if the database does not answer or refuses.
    """

    def __init__(self, url: str, *, statement_seconds: float = STATEMENT_SECONDS) -> None:
        # psycopg begins transactions only outside of autocommit.
        self._engine = make_engine(url).execution_options(isolation_level="READ COMMITTED")
        self.address = address(self._engine.url)
        self._milliseconds = str(round(statement_seconds * 1000))

    def facts(self) -> Row:
        """Return the server's version, the user, and the settings that decide about writing."""
        return self._rows(_SERVER)[0]

    def changed_settings(self) -> list[tuple[str, str, str]]:
        """Return the session settings that sagas rely on and could not set: name, value, wanted value."""
        # Not in a transaction with a statement_timeout, which is one of these settings.
        with self._engine.connect() as connection:
            return [(name, value, wanted) for name, value, wanted in connection.execute(sa.text(STILL_CHANGED))]

    def schema_version(self) -> str | None:
        """Return the revision of the tables.

        Raises:
            SchemaBehind: this code needs a later one.
        """
        with self._engine.connect() as connection:
            check_version(connection)
            return current_version(connection)

    def access(self) -> list[Row]:
        """Return, for each table, the privileges that the user lacks, and whether row-level security hides rows."""
        return self._rows(_ACCESS, {"tables": [*metadata.tables]})

    def _rows(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        with self._engine.connect() as connection:
            connection.execute(sa.text(_BEGIN))
            connection.exec_driver_sql(_BOUND, {"milliseconds": self._milliseconds})
            return [dict(row) for row in connection.exec_driver_sql(statement, dict(parameters or {})).mappings()]
