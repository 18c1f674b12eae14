"""The SQL of an operator's questions, to be read as SQL; parameters in psycopg's style.

They only read, and each bounds itself: all unfinished sagas are in the three partial indexes of the scan, the
finished are in one by time, and an id begins with the time of its saga's start.
"""

from __future__ import annotations

from typing import Final

from sagas.storage.statements import DIES, DUE, PARKED_SQL, PAUSED_SQL, RECORD
from sagas.storage.tables import DEAD_SQL, NOT_QUEUED_SQL, PENDING_SQL, QUEUED_SQL, RECOVERABLE_SQL

#: One snapshot for all statements of a question; a question can write nothing.
BEGIN: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
#: For this transaction only, so that it also holds behind a pooler.
BOUND: Final = "SELECT set_config('statement_timeout', %(milliseconds)s, true), transaction_timestamp() AS now"

#: The conditions of the three partial indexes, in so many words, so that the planner may join what they hold.
_UNFINISHED: Final = f"({RECOVERABLE_SQL} AND {NOT_QUEUED_SQL} OR {PENDING_SQL} AND {NOT_QUEUED_SQL} OR {QUEUED_SQL})"
_PARKED: Final = "lease_owner = 'paused'"
_HELD: Final = f"{RECOVERABLE_SQL} AND {NOT_QUEUED_SQL} AND lease_owner IS NOT NULL AND lease_owner <> 'paused'"
_LATELY: Final = "statement_timestamp() - interval '1 hour'"

# -- listing --------------------------------------------------------------------------------------------------

# The first id of a time. Clocks of those who start sagas differ, so the range is an hour wider than what is asked for,
# which `created_at`, by the database's own clock, then settles.
_FIRST_ID: Final = """CAST(rpad(lpad(to_hex(GREATEST(0, CAST(1000 * extract(
        epoch FROM statement_timestamp() - make_interval(secs => {age}) {wider} interval '1 hour') AS bigint))),
        12, '0'), 32, '0') AS uuid)"""
_STARTED: Final = "created_at {than} statement_timestamp() - make_interval(secs => {age}) AND id {than} " + _FIRST_ID

#: What each filter of a listing adds; only those that are asked for, so that the planner sees what it may use.
LIST_FILTERS: Final = {
    "statuses": "status = ANY(CAST(%(statuses)s AS text[]))",
    "name": "name = %(name)s",
    "leased_by": "(lease_owner = %(leased_by)s OR starts_with(lease_owner, %(leased_by)s || '/'))",
    "older_than_seconds": _STARTED.format(than="<=", age="%(older_than_seconds)s", wider="+"),
    "newer_than_seconds": _STARTED.format(than=">=", age="%(newer_than_seconds)s", wider="-"),
    "after": "id < %(after)s",
    "unfinished": _UNFINISHED,
    "dead": f"{DEAD_SQL} AND {RECOVERABLE_SQL} AND {NOT_QUEUED_SQL}",
}


def listing(filters: list[str]) -> str:
    """Return the statement of a listing with these filters, the newest first."""
    conditions = " AND ".join(LIST_FILTERS[name] for name in filters) or "TRUE"
    return f"SELECT {RECORD} FROM saga_executions WHERE {conditions} ORDER BY id DESC LIMIT %(limit)s"


# -- one saga -------------------------------------------------------------------------------------------------

PAUSE_OF: Final = "SELECT name, by, because, since FROM saga_pauses WHERE name = %(name)s"
ASKED_BACK_BY: Final = "SELECT by FROM saga_asks WHERE saga_id = %(id)s AND until > statement_timestamp()"

# Every name that sagas with an idempotency key have: from one to the next in the index of keys, so it costs a look for
# each name, not for each saga.
_KEYED_NAMES: Final = """
    (SELECT name FROM saga_executions WHERE idempotency_key IS NOT NULL ORDER BY name LIMIT 1)
    UNION ALL
    SELECT (SELECT e.name FROM saga_executions e WHERE e.idempotency_key IS NOT NULL AND e.name > keyed.name
        ORDER BY e.name LIMIT 1)
    FROM keyed WHERE keyed.name IS NOT NULL"""

# By a range of ids, which the primary key has, and by an idempotency key, which its index has below each name.
NAMED: Final = f"""
WITH RECURSIVE keyed AS ({_KEYED_NAMES})
SELECT id, name, status FROM (
    (SELECT id, name, status FROM saga_executions
    WHERE id BETWEEN CAST(%(first)s AS uuid) AND CAST(%(last)s AS uuid)
        AND right(replace(CAST(id AS text), '-', ''), length(%(ends)s)) = %(ends)s
    ORDER BY id LIMIT %(limit)s)
    UNION
    (SELECT e.id, e.name, e.status FROM keyed JOIN saga_executions e ON e.name = keyed.name
    WHERE e.idempotency_key = CAST(%(key)s AS text) LIMIT %(limit)s)
) AS found ORDER BY id LIMIT %(limit)s"""

# The ids that begin with the same 48 bits as one of these, which are a saga's millisecond.
SAME_MILLISECOND: Final = """
SELECT other.id FROM unnest(CAST(%(firsts)s AS uuid[]), CAST(%(lasts)s AS uuid[])) AS wanted(first, last)
CROSS JOIN LATERAL (
    SELECT id FROM saga_executions WHERE id BETWEEN wanted.first AND wanted.last LIMIT %(limit)s) AS other"""

# Those that are kept, as far as an index knows them: of finished sagas without an idempotency key none does.
NAMES: Final = f"""
WITH RECURSIVE keyed AS ({_KEYED_NAMES})
SELECT name FROM keyed WHERE name IS NOT NULL
UNION SELECT name FROM saga_executions WHERE {_UNFINISHED}
UNION SELECT name FROM saga_pauses
ORDER BY 1"""

# -- all of them ----------------------------------------------------------------------------------------------

UNFINISHED: Final = f"""
SELECT name, status, count(*) AS sagas,
    count(*) FILTER (WHERE {DEAD_SQL}) AS dead,
    count(*) FILTER (WHERE {DEAD_SQL} AND updated_at > {_LATELY}) AS died_lately,
    count(*) FILTER (WHERE status = 'FAILED' AND NOT ({DEAD_SQL}) AND updated_at > {_LATELY}) AS failed_lately,
    count(*) FILTER (WHERE {QUEUED_SQL}) AS queued,
    min(updated_at) FILTER (WHERE {QUEUED_SQL}) AS queued_since,
    count(*) FILTER (WHERE {_PARKED}) AS parked
FROM saga_executions WHERE {_UNFINISHED}
GROUP BY name, status ORDER BY name, status"""

ENDED_LATELY: Final = f"""
SELECT name, status, count(*) AS sagas, count(*) FILTER (WHERE version >= 2) AS recovered
FROM saga_executions WHERE finished_at IS NOT NULL AND finished_at > {_LATELY}
GROUP BY name, status ORDER BY name, status"""

OLDEST_RECOVERABLE: Final = f"""
SELECT id, name, available_at AS due_since FROM saga_executions
WHERE {RECOVERABLE_SQL} AND {NOT_QUEUED_SQL} AND available_at <= statement_timestamp()
ORDER BY available_at LIMIT 1"""

LAST_SCAN: Final = "SELECT worker AS host, at FROM saga_scans ORDER BY at DESC LIMIT 1"

# The one question that reads an index of all finished sagas.
FINISHED_IN_TOTAL: Final = """
SELECT status, count(*) AS sagas FROM saga_executions WHERE finished_at IS NOT NULL GROUP BY status ORDER BY status"""

# -- who holds what -------------------------------------------------------------------------------------------

HOLDERS: Final = f"""
SELECT lease_owner AS owner, count(*) AS sagas, array_agg(DISTINCT name ORDER BY name) AS names,
    min(available_at) AS first_lease_ends, min(updated_at) AS quietest_since, max(updated_at) AS heard_at,
    count(*) FILTER (WHERE available_at <= statement_timestamp()) AS expired
FROM saga_executions WHERE {_HELD}
GROUP BY lease_owner ORDER BY lease_owner"""

# Named by its kind: a saga that never ran waits in another queue than one to be recovered.
IN_QUEUE: Final = f"""
SELECT {PENDING_SQL} AS pending, count(*) AS sagas, min(updated_at) AS since,
    count(*) FILTER (WHERE available_at <= statement_timestamp()) AS overdue
FROM saga_executions WHERE {QUEUED_SQL}
GROUP BY 1 ORDER BY 1 DESC"""

PARKED: Final = f"""
WITH parked AS (SELECT name, count(*) AS sagas FROM saga_executions WHERE {" OR ".join(PARKED_SQL.values())}
    GROUP BY name)
SELECT COALESCE(p.name, parked.name) AS name, COALESCE(parked.sagas, 0) AS sagas, p.by, p.because, p.since
FROM saga_pauses p FULL JOIN parked ON parked.name = p.name
ORDER BY 1"""

# -- what a scan would do -------------------------------------------------------------------------------------

# The claim's own choice, without its locks; of the rest, why a scan passes over it. One statement, so one time of day.
DRY_RUN: Final = f"""
WITH due AS MATERIALIZED (
    (SELECT id AS due_id, row_number() OVER () AS place FROM ({DUE[False]}) AS recoverable)
    UNION ALL
    (SELECT id, row_number() OVER () FROM ({DUE[True]}) AS pending)
), judged AS (
    SELECT id, name, status, lease_owner, available_at, last_error, place, CASE
        WHEN place IS NOT NULL AND {DIES} THEN 'dies'
        WHEN place IS NOT NULL AND {PAUSED_SQL} THEN 'parks'
        WHEN place IS NOT NULL THEN 'dispatched'
        WHEN {QUEUED_SQL} AND available_at <= statement_timestamp() THEN 'overdue'
        WHEN {QUEUED_SQL} THEN 'queued'
        WHEN {_PARKED} THEN 'paused'
        WHEN {DEAD_SQL} THEN 'dead'
        WHEN available_at <= statement_timestamp() THEN 'beyond the limit'
        WHEN lease_owner IS NOT NULL THEN 'held'
        WHEN starts_with(last_error, 'declined: ') THEN 'declined'
        WHEN status = 'FAILED' THEN 'backing off'
        ELSE 'sleeping' END AS verdict
    FROM saga_executions LEFT JOIN due ON due_id = id
    WHERE {_UNFINISHED}
), counted AS (
    SELECT *, count(*) OVER (PARTITION BY verdict) AS sagas,
        row_number() OVER (PARTITION BY verdict ORDER BY {PENDING_SQL}, place, available_at, id) AS nth
    FROM judged
)
SELECT verdict, sagas, id, name, status, lease_owner, NULLIF(available_at, 'infinity') AS available_at, last_error
FROM counted WHERE nth <= %(shown)s
ORDER BY verdict, nth"""

# -- housekeeping ---------------------------------------------------------------------------------------------

PRUNABLE: Final = """
SELECT count(*) AS sagas FROM saga_executions
WHERE finished_at IS NOT NULL AND finished_at < statement_timestamp() - make_interval(secs => %(age)s)"""
