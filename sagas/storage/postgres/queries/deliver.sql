-- Delivers signals to their sagas, as `rules.deliver` does: the inbox counts them, and a saga that waits is queued.
-- The sagas are locked first, and judged as they are once they are locked: a holder may have suspended one meanwhile.
-- Two deliveries of one signal count it once: the second finds it delivered. The signals of a saga that is gone are
-- deleted, because scans would find them for ever: a saga may be pruned while its signal is on its way.
WITH saga AS MATERIALIZED (
    SELECT id, state, available_at FROM saga_executions
    WHERE id = ANY (CAST(:'ids' AS uuid[]))
    ORDER BY COALESCE(root_id, id), depth, id
    FOR UPDATE
), new AS (
    UPDATE saga_signals SET delivered = true
    -- Not written as NOT delivered: the index of what is undelivered is small as a rule, and large after an outage.
    WHERE saga_id = ANY (ARRAY(SELECT id FROM saga)) AND delivered IS NOT TRUE
    RETURNING saga_id, kind
), gone AS (
    DELETE FROM saga_signals
    WHERE saga_id = ANY (CAST(:'ids' AS uuid[])) AND saga_id <> ALL (ARRAY(SELECT id FROM saga))
), counted AS (
    SELECT saga_id, count(*) AS signals, bool_or(kind = 'cancel') AS cancels FROM new GROUP BY saga_id
), judged AS (
    SELECT saga.id, counted.signals, state = 'dead' AS dead,
        state = 'waiting' OR counted.cancels
            AND (state = 'dead' OR state = 'ready' AND available_at > statement_timestamp()) AS wakes
    FROM saga JOIN counted ON saga.id = counted.saga_id
)
UPDATE saga_executions e SET
    inbox = e.inbox + judged.signals,
    state = CASE WHEN wakes THEN 'queued' ELSE e.state END,
    recovery_attempts = CASE WHEN wakes AND dead THEN 0 ELSE e.recovery_attempts END,
    available_at = CASE WHEN wakes THEN clock_timestamp() + make_interval(secs => :'probe') ELSE e.available_at END,
    updated_at = CASE WHEN wakes THEN clock_timestamp() ELSE e.updated_at END
FROM judged
WHERE e.id = judged.id
RETURNING e.id, e.version, e.status, judged.wakes, e.updated_at AS queued_at
