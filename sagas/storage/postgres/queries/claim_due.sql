-- Queues recoverable sagas that are due, and reclaims those whose lease has expired: `rules.claim` in one statement.
-- It queues as many as the limit of the queue allows. For MATERIALIZED and the array see claim_new.sql.
-- It judges the rows as they were locked: the table itself shows them as they were when the statement began.
-- What has been due for the longest is returned first, so that it is sent first.
WITH due AS MATERIALIZED (
    SELECT id, name, version, state, lease_owner, in_flight, recovery_attempts, available_at FROM saga_executions
    WHERE status <> 'PENDING' AND state IN ('ready', 'running', 'waiting') AND available_at <= statement_timestamp()
    ORDER BY available_at
    LIMIT (
        SELECT GREATEST(:'limit' - count(*), 0)
        FROM (SELECT FROM saga_executions WHERE state = 'queued' AND status <> 'PENDING' LIMIT :'limit') AS waiting
    )
    FOR UPDATE SKIP LOCKED
), judged AS MATERIALIZED (
    SELECT due.id, due.state = 'running' AS expired, attempts, attempts >= :'max_attempts' AS dies,
        due.name IN (SELECT p.name FROM saga_pauses p) AS paused
    FROM due
    CROSS JOIN LATERAL (
        SELECT due.recovery_attempts + CAST(
            due.state = 'running' AND due.version >= 2 AND due.lease_owner NOT LIKE '%/shared' AS int
        ) AS attempts
    ) AS counted
), changed AS (
    UPDATE saga_executions e SET
        status = CASE WHEN judged.dies THEN 'FAILED' ELSE e.status END,
        state = CASE WHEN judged.dies THEN 'dead' WHEN judged.paused THEN 'paused' ELSE 'queued' END,
        available_at = CASE
            WHEN judged.dies THEN 'infinity'
            WHEN NOT judged.paused THEN clock_timestamp() + make_interval(secs => :'probe')
            WHEN judged.expired THEN clock_timestamp()
            ELSE e.available_at
        END,
        recovery_attempts = judged.attempts,
        suspect = e.suspect OR judged.expired AND e.lease_owner LIKE '%/shared',
        last_error = CASE
            WHEN judged.expired THEN 'worker ' || e.lease_owner || ' died or was cut off while holding the lease'
            ELSE e.last_error
        END,
        lease_owner = NULL,
        lease_token = NULL,
        in_flight = NULL,
        updated_at = clock_timestamp()
    FROM judged
    WHERE e.id = judged.id AND e.id = ANY (ARRAY(SELECT id FROM due))
    RETURNING e.id, e.version, e.state, e.updated_at AS queued_at
), lost AS (
    INSERT INTO saga_logs (saga_id, step_name, action, status, version, worker, details)
    SELECT id, 'holder', 'holder', 'lost', version, lease_owner, jsonb_build_object('in_flight', in_flight)
    FROM due WHERE state = 'running'
)
SELECT changed.id, changed.version, changed.state, queued_at
FROM changed JOIN due ON due.id = changed.id
ORDER BY due.available_at
