-- Makes queued sagas ready whose messages could not be sent. It skips rows that are locked, so that it cannot
-- deadlock with a scan: such a row is being acquired or claimed.
WITH unsent AS MATERIALIZED (
    SELECT e.id FROM saga_executions e
    JOIN unnest(CAST(:'ids' AS uuid[]), CAST(:'versions' AS bigint[])) AS claim (id, version)
        ON e.id = claim.id AND e.version = claim.version
    WHERE e.state = 'queued'
    FOR UPDATE OF e SKIP LOCKED
)
UPDATE saga_executions SET state = 'ready', available_at = clock_timestamp()
WHERE id = ANY (ARRAY(SELECT id FROM unsent))
