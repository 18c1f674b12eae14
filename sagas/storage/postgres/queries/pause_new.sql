-- Pauses sagas of a paused name that never ran and are due, some at a time. Otherwise each scan would have to skip them.
WITH due AS MATERIALIZED (
    SELECT id FROM saga_executions
    WHERE status = 'PENDING' AND state = 'ready' AND available_at <= statement_timestamp()
        AND name = :'name' AND name IN (SELECT p.name FROM saga_pauses p)
    LIMIT :'limit'
    FOR UPDATE SKIP LOCKED
)
UPDATE saga_executions SET state = 'paused', updated_at = clock_timestamp() WHERE id = ANY (ARRAY(SELECT id FROM due))
