-- Reclaims every saga of an owner that is known to be lost, as if its leases had expired: `rules.reclaim`.
WITH held AS MATERIALIZED (
    SELECT id, version, lease_owner, in_flight,
        recovery_attempts + CAST(version >= 2 AND lease_owner NOT LIKE '%/shared' AS int) AS attempts
    FROM saga_executions
    WHERE status <> 'PENDING' AND state IN ('ready', 'running', 'waiting') AND state = 'running'
        AND lease_owner = :'owner'
    ORDER BY COALESCE(root_id, id), depth, id
    FOR UPDATE
), changed AS (
    UPDATE saga_executions e SET
        status = CASE WHEN held.attempts >= :'max_attempts' THEN 'FAILED' ELSE e.status END,
        state = CASE WHEN held.attempts >= :'max_attempts' THEN 'dead' ELSE 'ready' END,
        available_at = CASE WHEN held.attempts >= :'max_attempts' THEN 'infinity' ELSE clock_timestamp() END,
        recovery_attempts = held.attempts,
        suspect = e.suspect OR e.lease_owner LIKE '%/shared',
        last_error = 'worker ' || e.lease_owner || ' died or was cut off while holding the lease',
        lease_owner = NULL,
        lease_token = NULL,
        in_flight = NULL,
        updated_at = clock_timestamp()
    FROM held
    WHERE e.id = held.id
    RETURNING e.id
)
INSERT INTO saga_logs (saga_id, step_name, action, status, version, worker, details)
SELECT held.id, 'holder', 'holder', 'lost', held.version, held.lease_owner,
    jsonb_build_object('in_flight', held.in_flight)
FROM held JOIN changed USING (id)
