"""The SQL of the PostgreSQL storage, to be read as SQL; parameters in psycopg's style.

Time is the database's, taken in the statement itself. Every fenced write ends in `FENCE`.
"""

from __future__ import annotations

from typing import Final

from sagas.storage.base import MOST_ATTEMPTS
from sagas.storage.tables import DEAD_SQL, NOT_QUEUED_SQL, PENDING_SQL, QUEUED_SQL, RECOVERABLE_SQL

FENCE: Final = "id = %(id)s AND version = %(version)s AND lease_owner = %(owner)s"

# A holder that is neither the queue nor nobody, whose lease ran out: it crashed, froze or was cut off.
_EXPIRED: Final = "lease_owner IS NOT NULL AND lease_owner <> 'queue' AND available_at <= statement_timestamp()"
# The first hold of a saga is not a recovery, so its crash is not a failed one.
_CRASH_COUNTS: Final = "version >= 2"
_CRASH_MESSAGE: Final = "'worker ' || {owner} || ' died or was cut off while holding the lease'"

# A due saga of a paused name is parked: no scan looks at it again until the name is resumed.
PAUSED_SQL: Final = "name IN (SELECT p.name FROM saga_pauses p)"

RECORD: Final = """
    id, name, status, context::text AS context, version, recovery_attempts, lease_owner,
    NULLIF(available_at, 'infinity') AS available_at, last_error, idempotency_key, definition_version, interrupted,
    created_at, updated_at, finished_at, traceparent"""

_LOG: Final = """
    COALESCE((SELECT jsonb_agg(to_jsonb(l) ORDER BY l.id) FROM saga_logs l WHERE l.saga_id = {saga}.id), '[]') AS log"""

# ON CONFLICT needs the index's own condition to find it.
_CREATE: Final = """
INSERT INTO saga_executions
    (id, name, idempotency_key, definition_version, context, traceparent, status, version, lease_owner, available_at)
SELECT new.id, new.name, new.key, new.definition, new.context::json, new.traceparent,
    %(status)s, %(version)s, %(owner)s, clock_timestamp() + make_interval(secs => %(seconds)s)
FROM {new} AS new(id, name, key, definition, context, traceparent){where}
ON CONFLICT (name, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id"""
_NEW: Final = """unnest(CAST(%(ids)s AS uuid[]), CAST(%(names)s AS text[]), CAST(%(keys)s AS text[]),
    CAST(%(definitions)s AS text[]), CAST(%(contexts)s AS text[]), CAST(%(traceparents)s AS text[]))"""
CREATE: Final = _CREATE.format(new=_NEW, where="")
# One saga, which is what most programs start at a time, without arrays: they are slow to write and to read.
CREATE_ONE: Final = _CREATE.format(
    new="""(VALUES (CAST(%(new_id)s AS uuid), CAST(%(name)s AS text), CAST(%(key)s AS text),
    CAST(%(definition)s AS text), CAST(%(context)s AS text), CAST(%(traceparent)s AS text)))""",
    where="",
)

FIND_BY_KEY: Final = """
SELECT e.id, e.name, e.idempotency_key
FROM saga_executions e
JOIN unnest(CAST(%(names)s AS text[]), CAST(%(keys)s AS text[])) AS wanted(name, key)
    ON e.name = wanted.name AND e.idempotency_key = wanted.key"""

# Which table is meant, wherever it is asked: the server (no two start at the same microsecond), the database there, and
# the table, which a search_path chooses. Anybody may ask, and it is the same through a pooler.
_HERE: Final = """concat_ws('/', CAST(extract(epoch FROM pg_postmaster_start_time()) * 1000000 AS bigint),
    (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()),
    CAST(CAST('saga_executions' AS regclass) AS oid))"""
HERE: Final = f"SELECT {_HERE} AS here"
# In a transaction of the caller's: nothing is stored in any other table than the one that is meant.
CREATE_WITHIN: Final = _CREATE.format(new=_NEW, where=f"\nWHERE {_HERE} = CAST(%(here)s AS text)")
FIND_BY_KEY_WITHIN: Final = f"""
SELECT {_HERE} AS here, found.* FROM (SELECT 1) AS one LEFT JOIN ({FIND_BY_KEY}) AS found ON true"""
TAKE_BACK_WITHIN: Final = "DELETE FROM saga_executions WHERE id = ANY (CAST(%(ids)s AS uuid[])) RETURNING id"

LOAD: Final = f"SELECT {RECORD}, {_LOG.format(saga='saga_executions')} FROM saga_executions WHERE id = %(id)s"

FIND: Final = f"""
SELECT {RECORD} FROM saga_executions
WHERE (CAST(%(statuses)s AS text[]) IS NULL OR status = ANY(%(statuses)s))
    AND (CAST(%(name)s AS text) IS NULL OR name = %(name)s)
    AND (CAST(%(dead)s AS boolean) IS NULL OR ({DEAD_SQL}) = %(dead)s)
ORDER BY id DESC
LIMIT %(limit)s"""

FOR_RECOVERY: Final = f"""
SELECT id FROM saga_executions
WHERE {RECOVERABLE_SQL}
    AND available_at <= statement_timestamp()
    AND recovery_attempts < %(max_attempts)s
    AND (CAST(%(stale)s AS float8) IS NULL OR updated_at < statement_timestamp() - make_interval(secs => %(stale)s))
    AND (CAST(%(name)s AS text) IS NULL OR name = %(name)s)
ORDER BY updated_at, id
LIMIT %(limit)s"""

# No further than the largest number that may be set, so that the sums of other statements fit their type too.
_ONE_MORE: Final = f"recovery_attempts = LEAST(recovery_attempts + 1, {MOST_ATTEMPTS})"
INCREMENT_ATTEMPTS: Final = f"""
UPDATE saga_executions SET {_ONE_MORE}, updated_at = clock_timestamp() WHERE id = %(id)s"""

# Locked first, and loaded by a statement of its own: one that has waited for the lock does not see the newest log.
LOCK: Final = "SELECT id FROM saga_executions WHERE id = %(id)s FOR UPDATE"
NOW: Final = "SELECT clock_timestamp() AS now"
COUNT_ATTEMPT: Final = f"""
UPDATE saga_executions
SET {_ONE_MORE},
    status = %(status)s,
    interrupted = %(interrupted)s,
    lease_owner = CASE WHEN %(frees)s THEN NULL ELSE lease_owner END,
    available_at = CASE WHEN %(frees)s THEN clock_timestamp() ELSE available_at END,
    updated_at = clock_timestamp()
WHERE id = %(id)s"""
LOG_NOTE: Final = """
INSERT INTO saga_logs (saga_id, step_name, action, status, attempt, version, details)
VALUES (%(id)s, %(step)s, %(action)s, %(entry_status)s, %(attempt)s, %(version)s, CAST(%(details)s AS jsonb))"""

SET_ATTEMPTS: Final = f"""
UPDATE saga_executions
SET recovery_attempts = %(attempts)s,
    available_at = CASE WHEN available_at = 'infinity' AND lease_owner IS NULL AND {RECOVERABLE_SQL}
        THEN clock_timestamp() ELSE available_at END
WHERE id = %(id)s"""

# The row is locked first and judged as it is then, so that of two takers one waits and sees what the other did. The
# log, however, is read as it was when the statement began: when the row was written since, by a checkpoint perhaps,
# rows of the log would be missing. 'moved' changes nothing, and asks for the statement to be run again.
TAKE: Final = f"""
WITH saga AS MATERIALIZED (
    SELECT id, name, ctid AS place, status, version, lease_owner, available_at, recovery_attempts, {_EXPIRED} AS crashed
    FROM saga_executions WHERE id = %(id)s FOR UPDATE
), judged AS (
    SELECT *, CASE
        WHEN status IN ('COMPLETED', 'COMPENSATED') THEN 'finished'
        WHEN {NOT_QUEUED_SQL} AND lease_owner <> 'paused' AND NOT crashed THEN 'held'
        WHEN version <> %(version)s THEN 'outdated'
        WHEN crashed AND {_CRASH_COUNTS} AND recovery_attempts + 1 >= %(max_attempts)s THEN 'died'
        WHEN NOT %(by_hand)s AND {RECOVERABLE_SQL}
            AND (recovery_attempts >= %(max_attempts)s OR available_at = 'infinity' AND lease_owner IS NULL) THEN 'dead'
        WHEN NOT %(by_hand)s AND {PAUSED_SQL} THEN 'paused'
        WHEN place <> (SELECT seen.ctid FROM saga_executions seen WHERE seen.id = saga.id) THEN 'moved'
        WHEN NOT %(by_hand)s AND CAST(%(version)s AS bigint) IS NULL
            AND lease_owner IS NULL AND available_at > statement_timestamp() THEN 'waiting'
        ELSE 'taken' END AS verdict
    FROM saga
), changed AS (
    UPDATE saga_executions e SET
        version = e.version + 1,
        status = CASE
            WHEN judged.verdict = 'died' THEN 'FAILED'
            WHEN e.status NOT IN ('PENDING', 'FAILED') THEN e.status
            WHEN EXISTS (SELECT FROM saga_logs l WHERE l.saga_id = e.id
                AND (l.action = 'compensate' OR l.details->>'verdict' = 'turn back')) THEN 'COMPENSATING'
            ELSE 'RUNNING' END,
        lease_owner = CASE WHEN judged.verdict = 'taken' THEN %(owner)s END,
        available_at = CASE WHEN judged.verdict = 'taken'
            THEN clock_timestamp() + make_interval(secs => %(lease)s) ELSE 'infinity' END,
        recovery_attempts = LEAST(e.recovery_attempts + (judged.crashed AND judged.{_CRASH_COUNTS})::int,
            -- Taken by hand although dead: it has one attempt left, whatever it had spent.
            CASE WHEN judged.verdict = 'taken' THEN %(max_attempts)s - 1 END),
        interrupted = e.interrupted OR judged.crashed,
        last_error = CASE WHEN judged.crashed
            THEN {_CRASH_MESSAGE.format(owner="e.lease_owner")} ELSE e.last_error END,
        updated_at = clock_timestamp()
    FROM judged
    WHERE e.id = judged.id AND judged.verdict IN ('taken', 'died')
    RETURNING e.*
)
SELECT judged.verdict, judged.status AS status_before, changed.*
FROM judged LEFT JOIN (SELECT {RECORD}, {_LOG.format(saga="changed")} FROM changed) AS changed USING (id)"""

_INSERT_COMPLETED: Final = """
INSERT INTO saga_logs (saga_id, step_name, action, status, attempt, version, worker)
SELECT id, %(step)s, %(action)s, 'completed', %(attempt)s, %(version)s, %(owner)s FROM held"""

_INSERT_ENTRY: Final = """
INSERT INTO saga_logs (saga_id, step_name, action, status, attempt, version, details, worker)
SELECT id, %(step)s, %(action)s, %(entry_status)s, %(attempt)s, %(version)s, CAST(%(details)s AS jsonb), %(owner)s
FROM held"""

_PROGRESS: Final = """
    status = CAST(%(status)s AS text),
    context = COALESCE(CAST(%(context)s AS json), context),
    interrupted = FALSE,
    updated_at = clock_timestamp()"""

_END: Final = """
    status = CAST(%(status)s AS text),
    context = COALESCE(CAST(%(context)s AS json), context),
    recovery_attempts = 0,
    interrupted = FALSE,
    last_error = CASE WHEN CAST(%(status)s AS text) = 'COMPLETED' THEN NULL
        ELSE COALESCE(%(last_error)s, last_error) END,
    lease_owner = NULL,
    available_at = 'infinity',
    updated_at = clock_timestamp(),
    finished_at = clock_timestamp()"""


def _release(*, attempts: str, interrupted: str) -> str:
    dies = f"CAST(%(failed_attempt)s AS boolean) AND {attempts} + 1 >= %(max_attempts)s"
    return f"""
    status = CAST(%(status)s AS text),
    recovery_attempts = {attempts} + CAST(%(failed_attempt)s AS boolean)::int,
    interrupted = {interrupted},
    last_error = COALESCE(%(last_error)s, last_error),
    lease_owner = CASE WHEN {dies} THEN NULL ELSE %(next_owner)s END,
    available_at = CASE WHEN {dies} THEN 'infinity'
        ELSE clock_timestamp() + make_interval(secs => %(after)s) END,
    updated_at = clock_timestamp()"""


def _checkpoint(assignments: str, insert: str = _INSERT_ENTRY) -> str:
    # One statement, so one round trip and one commit: the row is inserted from what the fenced update returned.
    return f"WITH held AS (UPDATE saga_executions SET {assignments} WHERE {FENCE} RETURNING id) {insert}"


_ATTEMPTS_AFTER: Final = "CASE WHEN CAST(%(entry_status)s AS text) = 'failed' THEN recovery_attempts ELSE 0 END"
# Of every step that succeeds, so it takes no more parameters than it needs.
CHECKPOINT_COMPLETED: Final = _checkpoint(f"{_PROGRESS}, recovery_attempts = 0", _INSERT_COMPLETED)
CHECKPOINT_FAILED: Final = _checkpoint(
    f"{_PROGRESS}, recovery_attempts = {_ATTEMPTS_AFTER}, last_error = COALESCE(%(last_error)s, last_error)"
)
CHECKPOINT_NOTE: Final = _checkpoint("updated_at = clock_timestamp()")
CHECKPOINT_END: Final = _checkpoint(_END)
CHECKPOINT_RELEASE: Final = _checkpoint(
    _release(attempts=_ATTEMPTS_AFTER, interrupted="%(interrupted)s")
    + ", context = COALESCE(CAST(%(context)s AS json), context)"
)
END: Final = f"UPDATE saga_executions SET {_END} WHERE {FENCE}"
RELEASE: Final = f"""UPDATE saga_executions SET
    {_release(attempts="recovery_attempts", interrupted="interrupted OR %(interrupted)s")} WHERE {FENCE}"""

RENEW: Final = f"""
UPDATE saga_executions
SET available_at = clock_timestamp() + make_interval(secs => %(lease)s), updated_at = clock_timestamp()
WHERE {FENCE}
RETURNING {PAUSED_SQL} OR EXISTS (SELECT FROM saga_asks a
    WHERE a.saga_id = saga_executions.id AND a.until > statement_timestamp()) AS asked_back"""

ASK_BACK: Final = """
WITH forgotten AS (DELETE FROM saga_asks WHERE until <= statement_timestamp() AND saga_id <> %(id)s)
INSERT INTO saga_asks (saga_id, by, until)
VALUES (%(id)s, %(by)s, clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (saga_id) DO UPDATE SET by = EXCLUDED.by, until = EXCLUDED.until"""

# Whoever freezes in a transaction is cut off by the server, and its locks with it.
SHORT_TRANSACTION: Final = """
SELECT set_config('idle_in_transaction_session_timeout', '10s', true), set_config('lock_timeout', '10s', true)"""

# Scans queue up here for their two statements, so that the second counts what the first has marked.
ONE_SCAN_AT_A_TIME: Final = f"{SHORT_TRANSACTION}, pg_advisory_xact_lock(%(key)s)"

_KIND: Final = {True: PENDING_SQL, False: RECOVERABLE_SQL}

# The broker is first in, first out: of the marks that are due, the newest belong to the messages that still wait, the
# oldest have lost theirs. They are freed for a moment first: a message may be in a worker's hands already.
FREE_MISSING: Final = {
    pending: f"""
WITH overdue AS MATERIALIZED (
    SELECT id, available_at FROM saga_executions
    WHERE {QUEUED_SQL} AND {kind} AND available_at <= statement_timestamp()
    ORDER BY available_at LIMIT CAST(%(waiting)s AS bigint) + %(limit)s
), missing AS (
    SELECT id FROM overdue ORDER BY available_at
    LIMIT (SELECT GREATEST(count(*) - %(waiting)s, 0) FROM overdue)
)
UPDATE saga_executions
SET lease_owner = NULL, available_at = clock_timestamp() + make_interval(secs => %(grace)s)
WHERE id = ANY (ARRAY(SELECT id FROM missing)) AND {QUEUED_SQL}"""
    for pending, kind in _KIND.items()
}

# Of the host that scanned; with the claim, so that a scan that failed half-way does not count.
SCANNED: Final = """
INSERT INTO saga_scans (worker, at) VALUES (%(host)s, clock_timestamp())
ON CONFLICT (worker) DO UPDATE SET at = EXCLUDED.at
RETURNING EXISTS (SELECT FROM saga_resumes) AS resuming"""

# Whoever seizes a saga frees it: its holder's crash is counted, if it has one, and buries the saga at the maximum.
_ATTEMPTS: Final = f"recovery_attempts + (lease_owner IS NOT NULL AND {_CRASH_COUNTS})::int"
DIES: Final = f"status <> 'PENDING' AND {_ATTEMPTS} >= %(max_attempts)s"
_SEIZE: Final = f"""
    lease_owner = CASE WHEN {DIES} THEN NULL WHEN {{parked}} THEN 'paused' ELSE %(next_owner)s END,
    available_at = CASE WHEN {DIES} OR {{parked}} THEN 'infinity'
        ELSE clock_timestamp() + make_interval(secs => %(seconds)s) END,
    status = CASE WHEN {DIES} THEN 'FAILED' ELSE status END,
    recovery_attempts = {_ATTEMPTS},
    interrupted = interrupted OR lease_owner IS NOT NULL,
    last_error = COALESCE({_CRASH_MESSAGE.format(owner="lease_owner")}, last_error),
    updated_at = clock_timestamp()"""

# What a scan takes, in its order: as many as bring what waits in the queue up to the limit.
DUE: Final = {
    pending: f"""
    SELECT id FROM saga_executions
    WHERE {kind} AND {NOT_QUEUED_SQL} AND available_at <= statement_timestamp()
    ORDER BY available_at
    LIMIT (SELECT GREATEST(%(limit)s - count(*), 0) FROM
        (SELECT FROM saga_executions WHERE {QUEUED_SQL} AND {kind} LIMIT %(limit)s) AS waiting)"""
    for pending, kind in _KIND.items()
}

# MATERIALIZED, or the planner may run the locking select again for every row it joins, and lock more than the limit.
# An array, because the planner takes a LIMIT that it cannot know for a tenth of what is due: with a backlog of some
# thousands it would join by reading the whole table.
CLAIM: Final = {
    pending: f"""
WITH due AS MATERIALIZED ({due}
    FOR UPDATE SKIP LOCKED
)
UPDATE saga_executions SET {_SEIZE.format(parked=PAUSED_SQL)} WHERE id = ANY (ARRAY(SELECT id FROM due))
RETURNING id, version, available_at = 'infinity' AND lease_owner IS NULL AS died, lease_owner = 'paused' AS parked"""
    for pending, due in DUE.items()
}

SEIZE_ORPHANS: Final = f"""
UPDATE saga_executions SET {_SEIZE.format(parked="FALSE")}
WHERE {RECOVERABLE_SQL} AND {NOT_QUEUED_SQL} AND lease_owner = %(owner)s AND lease_owner <> 'paused'"""

# Pausing, parking and resuming are done under the scans' lock: a scan that began before a resume would park sagas that
# nobody would ever free.
PAUSE: Final = """
WITH resumed AS (DELETE FROM saga_resumes WHERE name = %(name)s)
INSERT INTO saga_pauses (name, by, because) VALUES (%(name)s, %(by)s, %(because)s)
ON CONFLICT (name) DO UPDATE SET by = EXCLUDED.by, because = EXCLUDED.because"""
# That a name is resumed is kept until nothing of it is parked, so that scans finish what its operator could not.
RESUME: Final = """
WITH paused AS (DELETE FROM saga_pauses WHERE name = %(name)s)
INSERT INTO saga_resumes (name) VALUES (%(name)s) ON CONFLICT DO NOTHING"""
PAUSES: Final = "SELECT name, by, because, since FROM saga_pauses ORDER BY name"

# All that is due at once, as one scan would have to get past it to reach what is due after it; the rest when it is due.
PARK: Final = {
    pending: f"""
WITH due AS MATERIALIZED (
    SELECT id FROM saga_executions
    WHERE {kind} AND {NOT_QUEUED_SQL} AND available_at <= statement_timestamp()
        AND lease_owner IS NULL AND name = %(name)s AND {PAUSED_SQL}
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE saga_executions SET lease_owner = 'paused', available_at = 'infinity'
WHERE id = ANY (ARRAY(SELECT id FROM due))"""
    for pending, kind in _KIND.items()
}
# Equalities on what two of the indexes are sorted by.
PARKED_SQL: Final = {
    pending: f"{kind} AND {NOT_QUEUED_SQL} AND available_at = 'infinity' AND lease_owner = 'paused'"
    for pending, kind in _KIND.items()
}
FREE_PARKED: Final = {
    pending: f"""
WITH parked AS MATERIALIZED (
    SELECT id FROM saga_executions
    WHERE {parked} AND name IN (SELECT r.name FROM saga_resumes r)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE saga_executions SET lease_owner = NULL, available_at = clock_timestamp()
WHERE id = ANY (ARRAY(SELECT id FROM parked))"""
    for pending, parked in PARKED_SQL.items()
}
# A row that somebody looks at just now was skipped: its name is not done with.
RESUMED: Final = f"""
DELETE FROM saga_resumes r WHERE {
    " AND ".join(
        f"NOT EXISTS (SELECT FROM saga_executions WHERE {parked} AND name = r.name)" for parked in PARKED_SQL.values()
    )
}"""

CLAIM_BY_ID: Final = f"""
WITH free AS MATERIALIZED (
    SELECT id FROM saga_executions
    WHERE id = ANY (CAST(%(ids)s AS uuid[])) AND {PENDING_SQL}
        AND lease_owner IS NULL AND available_at <= statement_timestamp()
    FOR UPDATE SKIP LOCKED
)
UPDATE saga_executions
SET lease_owner = 'queue', available_at = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE id = ANY (ARRAY(SELECT id FROM free))
RETURNING id, version"""

# It waits for no row, so that it cannot wait in a circle with a scan that frees the same marks in another order; a row
# that it leaves out is being taken, or freed.
UNCLAIM: Final = f"""
WITH unsent AS MATERIALIZED (
    SELECT e.id FROM saga_executions e
    JOIN unnest(CAST(%(ids)s AS uuid[]), CAST(%(versions)s AS bigint[])) AS claim(id, version)
        ON e.id = claim.id AND e.version = claim.version
    WHERE e.{QUEUED_SQL} FOR UPDATE OF e SKIP LOCKED
)
UPDATE saga_executions SET lease_owner = NULL, available_at = clock_timestamp()
WHERE id = ANY (ARRAY(SELECT id FROM unsent))"""

# An array for the reason that CLAIM gives: where the server keeps a plan for any limit, it would read the whole table.
PRUNE: Final = """
WITH old AS MATERIALIZED (
    SELECT id FROM saga_executions
    WHERE finished_at IS NOT NULL AND finished_at < statement_timestamp() - make_interval(secs => %(age)s)
    ORDER BY finished_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), logs AS (
    DELETE FROM saga_logs WHERE saga_id = ANY (ARRAY(SELECT id FROM old))
)
DELETE FROM saga_executions WHERE id = ANY (ARRAY(SELECT id FROM old))"""

SCHEMA_VERSION: Final = "SELECT version_num FROM sagas_alembic_version"
