-- The fence of a transactional step, which comes last: what the step wrote is kept only if this worker still holds the
-- saga, and only once. The row stays locked until the COMMIT that follows in the same round trip.
-- It fails rather than returning no row, because only an error keeps the COMMIT from being executed.
-- `in_flight` has the step until its checkpoint: a COMMIT whose answer was lost, and which comes late, fails a second
-- attempt here.
WITH held AS MATERIALIZED (
    SELECT id FROM saga_executions
    WHERE id = :'id' AND version = :'version' AND lease_token = :'token'
        AND (in_flight IS NULL OR :'step' = ANY (in_flight))
    FOR NO KEY UPDATE
)
SELECT CAST(CASE
    WHEN current_setting('application_name') <> :'name' THEN 'transaction ended'
    WHEN NOT EXISTS (SELECT FROM held) THEN 'lease lost'
    ELSE '1'
END AS int)
