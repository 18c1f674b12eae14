-- Writes that one action of a step completed and the saga ends with it: what nearly every end is. Fenced.
-- One statement without JSON, as `apply_progress.sql` is; `apply.sql` writes every other end.
WITH held AS (
    UPDATE saga_executions SET
        status = :'status',
        state = 'finished',
        context = COALESCE(CAST(:'context' AS json), context),
        recovery_attempts = 0,
        suspect = false,
        lease_owner = NULL,
        lease_token = NULL,
        available_at = 'infinity',
        in_flight = NULL,
        last_error = CASE WHEN NOT CAST(:'clears_error' AS boolean) THEN last_error END,
        finished_at = clock_timestamp(),
        updated_at = clock_timestamp()
    WHERE id = :'id' AND version = :'version' AND lease_token = :'token'
        AND (CAST(:'seen' AS bigint) IS NULL OR inbox = :'seen')
    RETURNING id, inbox
)
INSERT INTO saga_logs (saga_id, step_name, action, status, attempt, version, worker)
SELECT id, :'step', :'action', 'completed', :'attempt', :'version', :'owner' FROM held
RETURNING CAST(jsonb_build_array(id, created_at, (SELECT inbox FROM held)) AS text) AS applied
