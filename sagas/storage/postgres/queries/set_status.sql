-- Counts one more failed attempt of a saga that is locked, and sets its status as `attempts.count_attempt` decided.
WITH changed AS (
    UPDATE saga_executions
    SET recovery_attempts = LEAST(recovery_attempts + 1, 1000000000),
        status = :'status',
        state = CAST(:'state' AS text),
        lease_owner = CASE WHEN CAST(:'state' AS text) = 'running' THEN lease_owner END,
        lease_token = CASE WHEN CAST(:'state' AS text) = 'running' THEN lease_token END,
        in_flight = CASE WHEN CAST(:'state' AS text) = 'running' THEN in_flight END,
        available_at = CASE WHEN CAST(:'freed' AS boolean) THEN clock_timestamp() ELSE available_at END,
        suspect = :'suspect',
        updated_at = clock_timestamp()
    WHERE id = :'id'
    RETURNING id
)
INSERT INTO saga_logs (saga_id, step_name, action, status, attempt, version, worker, details)
SELECT changed.id, e.step, e.action, e.status, e.attempt, e.version, e.worker, e.details
FROM changed, jsonb_to_recordset(CAST(:'events' AS jsonb))
    AS e (step text, action text, status text, attempt int, version bigint, worker text, details jsonb)
