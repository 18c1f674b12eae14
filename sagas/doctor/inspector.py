"""What the doctor asks the database: all of its SQL, one function for each question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from sagas.storage.postgres.dsn import STILL_CHANGED, address, make_engine
from sagas.storage.schema import check_version, current_version
from sagas.storage.tables import DEAD_SQL, NOT_QUEUED_SQL, PENDING_SQL, QUEUED_SQL, RECOVERABLE_SQL, metadata

#: Rows that a question reads from each end of an index. A count that reaches it means "at least".
LIMIT: Final = 10_000

#: Shorter than a check may take, so that the server stops a slow statement and the check can report it.
_STATEMENT_SECONDS: Final = 4.0
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

_LAST_SCAN: Final = """
SELECT worker, EXTRACT(epoch FROM statement_timestamp() - at)::float8 AS age
FROM saga_scans
ORDER BY at DESC
LIMIT 1"""

_COLUMNS: Final = (
    "SELECT id, name, definition_version, status, lease_owner, available_at, last_error FROM saga_executions WHERE"
)
_DUE: Final = f"{RECOVERABLE_SQL} AND {NOT_QUEUED_SQL}"
_UNSTARTED: Final = f"{PENDING_SQL} AND {NOT_QUEUED_SQL}"
# Every unfinished saga is in one of three partial indexes. Rows come from both ends of each, because those that have
# waited longest are at one end. The dead share the other end with paused sagas, so they are also read by themselves.
UNFINISHED: Final = f"""
WITH unfinished AS (
    ({_COLUMNS} {_DUE} ORDER BY available_at LIMIT %(limit)s)
    UNION ({_COLUMNS} {_DUE} ORDER BY available_at DESC LIMIT %(limit)s)
    UNION ({_COLUMNS} {_DUE} AND {DEAD_SQL} LIMIT %(limit)s)
    UNION ({_COLUMNS} {_UNSTARTED} ORDER BY available_at LIMIT %(limit)s)
    UNION ({_COLUMNS} {_UNSTARTED} ORDER BY available_at DESC LIMIT %(limit)s)
    UNION ({_COLUMNS} {QUEUED_SQL} ORDER BY status, available_at LIMIT %(limit)s)
), judged AS (
    SELECT *, CASE
        WHEN {DEAD_SQL} THEN 'dead'
        WHEN {NOT_QUEUED_SQL} AND available_at < statement_timestamp() - make_interval(secs => %(seconds)s)
            THEN 'overdue'
        WHEN lease_owner IS NULL AND starts_with(last_error, 'declined: ') THEN 'declined'
        ELSE 'well' END AS state
    FROM unfinished
)
SELECT state, name, definition_version, count(*) AS sagas, max(id::text) AS example, max(last_error) AS last_error,
    CASE state WHEN 'overdue' THEN EXTRACT(epoch FROM statement_timestamp() - min(available_at))::float8 END AS age
FROM judged
GROUP BY state, name, definition_version
ORDER BY state, name, definition_version"""


#: A row, by the names of its columns.
Row = Mapping[str, Any]


class Inspector:
    """Asks one database.

    Each question has a connection of its own, so that a check that hangs blocks no later one.

    Args:
        url: of the database.
        statement_seconds: after how long the server stops a statement.

    Raises:
        ConfigurationError: the URL cannot be used.
        DBAPIError: from every method, if the database does not answer or refuses.
    """

    def __init__(self, url: str, *, statement_seconds: float = _STATEMENT_SECONDS) -> None:
        # psycopg begins transactions only outside of autocommit.
        self._engine = make_engine(url).execution_options(isolation_level="READ COMMITTED")
        self.address = address(self._engine.url)
        self._milliseconds = str(round(statement_seconds * 1000))

    def server(self) -> Row:
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

    def last_scan(self) -> Row | None:
        """Return the worker and the age in seconds of the last scan, or None if none ever ran."""
        return next(iter(self._rows(_LAST_SCAN)), None)

    def unfinished(self, *, overdue_seconds: float) -> list[Row]:
        """Return how many unfinished sagas are in each state, by state, name and definition_version.

        The state is 'dead', 'overdue' (due, and no worker acquires it), 'declined' or 'well'. Each row has the number
        of `sagas`, the id and the last error of an example, and the age of the oldest in seconds if it is overdue.

        Args:
            overdue_seconds: after how long a saga that is due is overdue.
        """
        return self._rows(UNFINISHED, {"limit": LIMIT, "seconds": overdue_seconds})

    def _rows(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        with self._engine.connect() as connection:
            connection.execute(sa.text(_BEGIN))
            connection.exec_driver_sql(_BOUND, {"milliseconds": self._milliseconds})
            return [dict(row) for row in connection.exec_driver_sql(statement, dict(parameters or {})).mappings()]
