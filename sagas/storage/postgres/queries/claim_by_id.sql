-- Queues the given sagas that never ran, are ready and due, and whose names are not paused.
WITH free AS MATERIALIZED (
    SELECT id FROM saga_executions
    WHERE id = ANY (CAST(:'ids' AS uuid[])) AND status = 'PENDING' AND state = 'ready'
        AND available_at <= statement_timestamp() AND name NOT IN (SELECT p.name FROM saga_pauses p)
    FOR UPDATE SKIP LOCKED
)
UPDATE saga_executions
SET state = 'queued', available_at = clock_timestamp() + make_interval(secs => :'probe'),
    updated_at = clock_timestamp()
WHERE id = ANY (ARRAY(SELECT id FROM free))
RETURNING id, version, updated_at AS queued_at
