-- Stores a signal and delivers it, as add_signal.sql and deliver.sql do, in one commit. Returns nothing if it is known.
-- The saga is locked before the signal is stored, as in deliver.sql, so that no two of these wait for each other.
WITH saga AS MATERIALIZED (
    SELECT id, state, available_at FROM saga_executions WHERE id = CAST(:'saga' AS uuid) FOR UPDATE
), new AS (
    INSERT INTO saga_signals (saga_id, kind, name, signal_id, payload, by, because, delivered)
    SELECT id, CAST(:'kind' AS text), CAST(:'name' AS text), CAST(:'signal' AS text),
        CAST(CAST(:'payload' AS text) AS json), CAST(:'by' AS text), CAST(:'because' AS text), true
    FROM saga
    ON CONFLICT (saga_id, kind, name, signal_id) DO NOTHING
    RETURNING kind
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
