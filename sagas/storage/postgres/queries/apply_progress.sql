-- Writes that one action of a step completed and the holder continues, as nearly every checkpoint does. Fenced.
-- It is one statement, so one round trip and one commit: the row of the log comes from what the fenced update returned.
WITH held AS (
    UPDATE saga_executions SET
        status = :'status',
        context = COALESCE(CAST(:'context' AS json), context),
        recovery_attempts = 0,
        suspect = false,
        in_flight = ARRAY[CAST(:'next' AS text)],
        updated_at = clock_timestamp()
    WHERE id = :'id' AND version = :'version' AND lease_token = :'token'
    RETURNING id, inbox
)
INSERT INTO saga_logs (saga_id, step_name, action, status, attempt, version, worker)
SELECT id, :'step', :'action', 'completed', :'attempt', :'version', :'owner' FROM held
RETURNING CAST(jsonb_build_array(id, created_at, (SELECT inbox FROM held)) AS text) AS applied
