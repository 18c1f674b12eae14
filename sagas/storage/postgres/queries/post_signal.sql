-- Stores a signal and delivers it, as add_signal.sql and deliver.sql do, in one commit. Returns nothing if it is known.
-- The signal is stored before the saga is locked. The same signal may be in the open transaction of a caller, for which
-- this statement then waits: it must not have the saga's row meanwhile.
WITH new AS (
    INSERT INTO saga_signals (saga_id, kind, name, signal_id, payload, by, because, delivered)
    SELECT id, CAST(:'kind' AS text), CAST(:'name' AS text), CAST(:'signal' AS text),
        CAST(CAST(:'payload' AS text) AS json), CAST(:'actor' AS text), CAST(:'reason' AS text), true
    FROM saga_executions WHERE id = CAST(:'saga' AS uuid)
    ON CONFLICT (saga_id, kind, name, signal_id) DO NOTHING
    RETURNING saga_id, kind
), saga AS MATERIALIZED (
    SELECT id, state, available_at FROM saga_executions WHERE id = (SELECT saga_id FROM new) FOR UPDATE
), judged AS (
    SELECT saga.id, state = 'dead' AS dead,
        state = 'waiting' OR kind = 'cancel'
            AND (state = 'dead' OR state = 'ready' AND available_at > statement_timestamp()) AS wakes
    FROM saga, new
)
UPDATE saga_executions e SET
    inbox = e.inbox + 1,
    state = CASE WHEN wakes THEN 'queued' ELSE e.state END,
    recovery_attempts = CASE WHEN wakes AND dead THEN 0 ELSE e.recovery_attempts END,
    available_at = CASE WHEN wakes THEN clock_timestamp() + make_interval(secs => :'probe') ELSE e.available_at END,
    updated_at = CASE WHEN wakes THEN clock_timestamp() ELSE e.updated_at END
FROM judged
WHERE e.id = judged.id
RETURNING CAST(jsonb_build_array(e.version, e.status, judged.wakes, e.updated_at) AS text) AS posted
