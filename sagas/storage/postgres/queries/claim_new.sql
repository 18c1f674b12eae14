-- Queues sagas that never ran and are due: as many as the limit of the queue allows, those due for the longest first.
-- Without MATERIALIZED, the planner may run the locking SELECT again for every row that it joins, and lock more than the
-- limit. The ids are an array because the planner estimates an unknown LIMIT as a tenth of the due rows: with a backlog
-- of some thousands it would join by reading the whole table.
WITH due AS MATERIALIZED (
    SELECT id, available_at FROM saga_executions
    WHERE status = 'PENDING' AND state = 'ready' AND available_at <= statement_timestamp()
    ORDER BY available_at
    LIMIT (
        SELECT GREATEST(:'limit' - count(*), 0)
        FROM (SELECT FROM saga_executions WHERE state = 'queued' AND status = 'PENDING' LIMIT :'limit') AS waiting
    )
    FOR UPDATE SKIP LOCKED
), changed AS (
    UPDATE saga_executions SET
        state = CASE WHEN name IN (SELECT p.name FROM saga_pauses p) THEN 'paused' ELSE 'queued' END,
        available_at = CASE
            WHEN name IN (SELECT p.name FROM saga_pauses p) THEN available_at
            ELSE clock_timestamp() + make_interval(secs => :'probe')
        END,
        updated_at = clock_timestamp()
    WHERE id = ANY (ARRAY(SELECT id FROM due))
    RETURNING id, version, state, updated_at AS queued_at
)
SELECT changed.id, changed.version, changed.state, queued_at
FROM changed JOIN due ON due.id = changed.id
ORDER BY due.available_at
