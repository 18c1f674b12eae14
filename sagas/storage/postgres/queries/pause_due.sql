-- As pause_new.sql, for recoverable sagas.
WITH due AS MATERIALIZED (
    SELECT id FROM saga_executions
    WHERE status <> 'PENDING' AND state IN ('ready', 'running', 'waiting') AND state <> 'running'
        AND available_at <= statement_timestamp()
        AND name = :'name' AND name IN (SELECT p.name FROM saga_pauses p)
    LIMIT :'limit'
    FOR UPDATE SKIP LOCKED
)
UPDATE saga_executions SET state = 'paused', updated_at = clock_timestamp() WHERE id = ANY (ARRAY(SELECT id FROM due))
