"""The SQL of the checks, to be read as SQL; parameters in psycopg's style.

None reads a table as a whole, however many sagas are finished: every unfinished one is in one of the three partial
indexes, and of each index only so many rows are read.
"""

from __future__ import annotations

from typing import Final

from sagas.storage.schema import VERSION_TABLE
from sagas.storage.tables import DEAD_SQL, NOT_QUEUED_SQL, PENDING_SQL, QUEUED_SQL, RECOVERABLE_SQL

SERVER: Final = """
SELECT current_setting('server_version') AS version, pg_backend_pid() AS pid,
    pg_is_in_recovery() AS replica, current_setting('default_transaction_read_only')::boolean AS read_only,
    quote_ident(current_user) AS "user", current_setting('server_encoding') AS encoding,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS connections"""

# Of the tables that there are: the others are another finding.
ROW_SECURITY: Final = """
SELECT name FROM unnest(CAST(%(tables)s AS text[])) AS name
WHERE to_regclass(name) IS NOT NULL AND row_security_active(to_regclass(name))
ORDER BY name"""

DURABILITY: Final = """
SELECT name, current_setting(name) AS value
FROM unnest(ARRAY['fsync', 'full_page_writes', 'synchronous_commit']) AS name"""

CLOCK: Final = "SELECT clock_timestamp() AS now"

VERSION_TABLE_EXISTS: Final = f"SELECT to_regclass('{VERSION_TABLE}') IS NOT NULL AS exists"
VERSION: Final = f"SELECT version_num AS version FROM {VERSION_TABLE}"

# A list of privileges would ask whether the user has any of them.
MISSING_PRIVILEGES: Final = """
SELECT wanted.table || ' (' || string_agg(privilege, ', ' ORDER BY privilege) || ')' AS missing
FROM unnest(CAST(%(tables)s AS text[])) AS wanted("table"),
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
WHERE NOT has_table_privilege(wanted.table, privilege)
GROUP BY wanted.table
ORDER BY wanted.table"""

LAST_SCAN: Final = """
SELECT worker, at, EXTRACT(epoch FROM statement_timestamp() - at)::float8 AS age
FROM saga_scans
ORDER BY at DESC
LIMIT 1"""

_UNFINISHED: Final = "SELECT id, name, definition_version, lease_owner, last_error FROM saga_executions WHERE"

# From both ends of each index, as the dead and the long waiting are at one of them.
DEFINITIONS: Final = f"""
WITH unfinished AS (
    ({_UNFINISHED} {RECOVERABLE_SQL} AND {NOT_QUEUED_SQL} ORDER BY available_at LIMIT %(limit)s)
    UNION ({_UNFINISHED} {RECOVERABLE_SQL} AND {NOT_QUEUED_SQL} ORDER BY available_at DESC LIMIT %(limit)s)
    UNION ({_UNFINISHED} {PENDING_SQL} AND {NOT_QUEUED_SQL} ORDER BY available_at LIMIT %(limit)s)
    UNION ({_UNFINISHED} {PENDING_SQL} AND {NOT_QUEUED_SQL} ORDER BY available_at DESC LIMIT %(limit)s)
    UNION ({_UNFINISHED} {QUEUED_SQL} ORDER BY status, available_at LIMIT %(limit)s)
)
SELECT name, definition_version, count(*) AS count, max(id::text) AS example,
    count(*) FILTER (WHERE lease_owner IS NULL AND starts_with(last_error, 'declined: ')) AS declined,
    max(last_error) FILTER (WHERE lease_owner IS NULL AND starts_with(last_error, 'declined: ')) AS decline
FROM unfinished
GROUP BY name, definition_version
ORDER BY name, definition_version"""

DEAD: Final = f"""
SELECT name, count(*) AS count, max(id::text) AS example, max(last_error) AS last_error
FROM (
    SELECT id, name, last_error FROM saga_executions
    WHERE {RECOVERABLE_SQL} AND {NOT_QUEUED_SQL} AND {DEAD_SQL}
    LIMIT %(limit)s
) AS dead
GROUP BY name
ORDER BY count DESC, name"""

_LATE: Final = """
    (SELECT lease_owner, available_at FROM saga_executions
    WHERE {which} AND available_at < statement_timestamp() - make_interval(secs => %(seconds)s)
    ORDER BY available_at LIMIT %(limit)s)"""

# Whether somebody holds them decides what they wait for: a lease to be seized, or a scan to send them.
LATE: Final = f"""
SELECT lease_owner IS NOT NULL AS held, count(*) AS count,
    EXTRACT(epoch FROM statement_timestamp() - min(available_at))::float8 AS age, max(lease_owner) AS example
FROM ({_LATE.format(which=f"{RECOVERABLE_SQL} AND {NOT_QUEUED_SQL}")}
    UNION ALL {_LATE.format(which=f"{PENDING_SQL} AND {NOT_QUEUED_SQL}")}
) AS late
GROUP BY held"""

QUEUED_LONG: Final = f"""
SELECT status, count(*) AS count,
    EXTRACT(epoch FROM statement_timestamp() - min(available_at))::float8 AS age
FROM ({_LATE.format(which=QUEUED_SQL).replace("lease_owner, available_at", "status, available_at")}) AS late
GROUP BY status
ORDER BY status"""

PAUSES: Final = """
SELECT name, by, because, EXTRACT(epoch FROM statement_timestamp() - since)::float8 AS age
FROM saga_pauses
WHERE since < statement_timestamp() - make_interval(secs => %(seconds)s)
ORDER BY name
LIMIT %(limit)s"""
