-- Acquires the lease of a saga, or returns why not: `rules.judge`, `rules.acquire` and `rules.refused` in one statement.
--
-- The row is locked first, and judged as it is once it is locked. Of two acquires, one waits for the other.
-- The log is read as it was when the statement began. If the row was written since, as by a checkpoint, rows of
-- the log would be missing. The statement then changes nothing, returns 'moved', and must be run again.
WITH saga AS MATERIALIZED (
    SELECT e AS locked, e.*, e.ctid AS place,
        state = 'running' AND available_at <= statement_timestamp() AS expired,
        COALESCE(lease_owner LIKE '%/shared', false) AS was_shared
    FROM saga_executions e WHERE id = :'id' FOR UPDATE
), judged AS (
    SELECT *,
        -- As dead_letters.crash_counts: not the first lease, nor that of a process that held others too.
        CAST(expired AND version >= 2 AND NOT was_shared AS int) AS crash,
        CASE
            WHEN state = 'finished' THEN 'finished'
            WHEN state = 'running' AND NOT expired THEN 'held'
            WHEN version <> CAST(:'version' AS bigint) THEN 'outdated'
            WHEN expired AND version >= 2 AND NOT was_shared AND recovery_attempts + 1 >= :'max_attempts' THEN 'died'
            WHEN NOT CAST(:'by_hand' AS boolean)
                AND (status <> 'PENDING' AND recovery_attempts >= :'max_attempts' OR state = 'dead') THEN 'dead'
            WHEN NOT CAST(:'by_hand' AS boolean)
                AND (state = 'paused' OR name IN (SELECT p.name FROM saga_pauses p)) THEN 'paused'
            WHEN place <> (SELECT seen.ctid FROM saga_executions seen WHERE seen.id = saga.id) THEN 'moved'
            WHEN NOT CAST(:'by_hand' AS boolean) AND CAST(:'version' AS bigint) IS NULL
                AND state IN ('ready', 'waiting') AND available_at > statement_timestamp() THEN 'waiting'
            WHEN (suspect OR expired AND was_shared) AND CAST(:'shared' AS boolean) THEN 'suspect'
            ELSE 'acquired'
        END AS verdict
    FROM saga
), changed AS (
    UPDATE saga_executions e SET
        version = e.version + CAST(judged.verdict IN ('acquired', 'died') AS int),
        status = CASE
            WHEN judged.verdict = 'died' THEN 'FAILED'
            WHEN judged.verdict = 'paused' OR e.status NOT IN ('PENDING', 'FAILED') THEN e.status
            WHEN EXISTS (
                SELECT FROM saga_logs l WHERE l.saga_id = e.id
                    AND (l.action = 'compensate' OR l.details->>'verdict' IN ('abort', 'turn back'))
            ) THEN 'COMPENSATING'
            ELSE 'RUNNING'
        END,
        state = CASE judged.verdict WHEN 'acquired' THEN 'running' WHEN 'died' THEN 'dead' ELSE 'paused' END,
        lease_owner = CASE WHEN judged.verdict = 'acquired' THEN :'owner' END,
        lease_token = CASE WHEN judged.verdict = 'acquired' THEN CAST(:'token' AS uuid) END,
        available_at = CASE
            WHEN judged.verdict = 'acquired' THEN clock_timestamp() + make_interval(secs => :'lease')
            WHEN judged.verdict = 'died' THEN 'infinity'
            -- The deadlines of a message and of a wait for a signal alone no longer matter.
            WHEN judged.state = 'queued' OR judged.expired OR e.available_at = 'infinity' THEN clock_timestamp()
            ELSE e.available_at
        END,
        -- A dead saga that is acquired by hand has one attempt left. LEAST ignores NULL.
        recovery_attempts = LEAST(
            e.recovery_attempts + judged.crash,
            CASE WHEN judged.verdict = 'acquired' THEN CAST(:'max_attempts' AS int) - 1 END
        ),
        suspect = e.suspect OR judged.expired AND judged.was_shared,
        in_flight = NULL,
        last_error = CASE
            WHEN judged.expired THEN 'worker ' || judged.lease_owner || ' died or was cut off while holding the lease'
            ELSE e.last_error
        END,
        updated_at = clock_timestamp()
    FROM judged
    WHERE e.id = judged.id
        AND (judged.verdict IN ('acquired', 'died') OR judged.verdict = 'paused' AND judged.state <> 'paused')
    RETURNING e.*
), lost AS (
    INSERT INTO saga_logs (saga_id, step_name, action, status, version, worker, details)
    SELECT judged.id, 'holder', 'holder', 'lost', judged.version, judged.lease_owner,
        jsonb_build_object('in_flight', judged.in_flight)
    FROM judged WHERE judged.expired AND EXISTS (SELECT FROM changed)
    RETURNING *
), now AS (
    SELECT * FROM changed
    UNION ALL
    SELECT (judged.locked).* FROM judged WHERE NOT EXISTS (SELECT FROM changed)
)
SELECT (SELECT verdict FROM judged) AS verdict, (SELECT judged.status FROM judged) AS status_before,
    id, name, status, state, CAST(context AS text) AS context, version, recovery_attempts, lease_owner, lease_token,
    NULLIF(available_at, 'infinity') AS available_at, last_error, idempotency_key, definition, definition_version,
    in_flight, suspect, COALESCE(root_id, id) AS root_id, depth, created_at, updated_at, finished_at, traceparent,
    inbox, deadline_at, tags,
    CASE WHEN EXISTS (SELECT FROM judged WHERE verdict = 'acquired') THEN
        COALESCE((SELECT jsonb_agg(to_jsonb(l) ORDER BY l.id) FROM saga_logs l WHERE l.saga_id = now.id), '[]')
        || COALESCE((SELECT jsonb_agg(to_jsonb(lost)) FROM lost), '[]')
    ELSE '[]' END AS log
FROM now
