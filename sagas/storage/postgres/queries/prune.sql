-- Deletes some finished sagas that ended long ago, and their logs and signals. For the array see claim_new.sql.
WITH old AS MATERIALIZED (
    SELECT id FROM saga_executions
    WHERE finished_at IS NOT NULL AND finished_at < statement_timestamp() - make_interval(secs => :'age')
    ORDER BY finished_at
    LIMIT :'limit'
    FOR UPDATE SKIP LOCKED
), logs AS (
    DELETE FROM saga_logs WHERE saga_id = ANY (ARRAY(SELECT id FROM old))
), signals AS (
    DELETE FROM saga_signals WHERE saga_id = ANY (ARRAY(SELECT id FROM old))
)
DELETE FROM saga_executions WHERE id = ANY (ARRAY(SELECT id FROM old))
