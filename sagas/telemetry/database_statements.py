"""The SQL of the metrics that come from the database, to be read as SQL; parameters in psycopg's style.

Each reads what is unfinished, or a few minutes of what is finished, through a partial index: never the whole table.
"""

from __future__ import annotations

from typing import Final

from sagas.storage.tables import DEAD_SQL, NOT_QUEUED_SQL, PENDING_SQL, QUEUED_SQL, RECOVERABLE_SQL

#: How far back finished sagas are counted, in seconds: short, because all of them are read at every scrape.
RECENT_SECONDS: Final = 300

# Of this transaction, so that it is gone with it, behind a pooler too.
BOUND: Final = "SELECT set_config('statement_timeout', %(milliseconds)s, true)"

# Each unfinished saga is in exactly one of these three, which have an index each.
_PARTS: Final = (f"{RECOVERABLE_SQL} AND {NOT_QUEUED_SQL}", f"{PENDING_SQL} AND {NOT_QUEUED_SQL}", QUEUED_SQL)

_ROWS: Final = " UNION ALL ".join(
    f"SELECT name, status, lease_owner, available_at FROM saga_executions WHERE {part}" for part in _PARTS
)

# What waits in the queue is marked until a little later than it was put there; from then on it is overdue.
UNFINISHED: Final = f"""
SELECT name, status, count(*) AS sagas,
    count(*) FILTER (WHERE {DEAD_SQL}) AS dead,
    count(*) FILTER (WHERE {QUEUED_SQL}) AS queued,
    count(*) FILTER (WHERE lease_owner NOT IN ('queue', 'paused') AND available_at > statement_timestamp()) AS held,
    GREATEST(extract(epoch FROM
        statement_timestamp() - min(available_at) FILTER (WHERE {QUEUED_SQL})), 0)::float8 AS overdue
FROM ({_ROWS}) AS unfinished GROUP BY name, status"""

FINISHED: Final = """
SELECT name, status, count(*) AS sagas FROM saga_executions
WHERE finished_at IS NOT NULL AND finished_at > statement_timestamp() - make_interval(secs => %(seconds)s)
GROUP BY name, status"""

# The first entry of an index each.
OLDEST: Final = "SELECT " + ", ".join(
    f"""
    (SELECT COALESCE(extract(epoch FROM statement_timestamp() - min(available_at)), 0)::float8
        FROM saga_executions WHERE {part} AND available_at <= statement_timestamp()) AS {column}"""
    for column, part in zip(("recoverable", "pending"), _PARTS, strict=False)
)

LAST_SCAN: Final = """
SELECT GREATEST(extract(epoch FROM statement_timestamp() - max(at)), 0)::float8 AS age
FROM saga_scans HAVING max(at) IS NOT NULL"""

PAUSES: Final = """
SELECT name, GREATEST(extract(epoch FROM statement_timestamp() - since), 0)::float8 AS age FROM saga_pauses"""
