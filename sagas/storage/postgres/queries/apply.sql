-- Writes any transition of a holder, as `transitions.change_of` and `rules.apply` define it. Fenced.
WITH asked AS (
    SELECT CAST(:'status' AS text) AS status, CAST(:'state' AS text) AS state, CAST(:'after' AS float8) AS after,
        CAST(:'resets' AS boolean) AS resets, CAST(:'counts' AS boolean) AS counts,
        CAST(:'max_attempts' AS int) AS max_attempts, CAST(:'context' AS json) AS context,
        CAST(:'in_flight' AS text[]) AS in_flight, CAST(:'last_error' AS text) AS last_error,
        CAST(:'clears_error' AS boolean) AS clears_error, CAST(:'seen' AS bigint) AS seen
), held AS (
    UPDATE saga_executions e SET
        status = asked.status,
        context = COALESCE(asked.context, e.context),
        recovery_attempts = CASE WHEN asked.resets THEN 0 ELSE e.recovery_attempts END + CAST(asked.counts AS int),
        suspect = e.suspect AND NOT asked.resets,
        state = CASE
            WHEN asked.counts AND CASE WHEN asked.resets THEN 0 ELSE e.recovery_attempts END + 1 >= asked.max_attempts THEN 'dead'
            ELSE asked.state
        END,
        lease_owner = CASE WHEN asked.state = 'running' THEN e.lease_owner END,
        lease_token = CASE WHEN asked.state = 'running' THEN e.lease_token END,
        available_at = CASE
            WHEN asked.state = 'running' THEN e.available_at
            WHEN asked.state = 'finished' OR asked.counts
                AND CASE WHEN asked.resets THEN 0 ELSE e.recovery_attempts END + 1 >= asked.max_attempts THEN 'infinity'
            ELSE COALESCE(clock_timestamp() + make_interval(secs => asked.after), 'infinity')
        END,
        in_flight = CASE WHEN asked.state = 'running' THEN COALESCE(asked.in_flight, e.in_flight) END,
        last_error = CASE WHEN NOT asked.clears_error THEN COALESCE(asked.last_error, e.last_error) END,
        finished_at = CASE WHEN asked.state = 'finished' THEN clock_timestamp() END,
        updated_at = clock_timestamp()
    FROM asked
    WHERE e.id = :'id' AND e.version = :'version' AND e.lease_token = :'token'
        -- Judged again after a wait for the row: a signal that was delivered meanwhile counts.
        AND (asked.seen IS NULL OR e.inbox = asked.seen)
    RETURNING e.*
), logged AS (
    INSERT INTO saga_logs (saga_id, step_name, action, status, attempt, version, details, worker)
    SELECT held.id, event.step, event.action, event.status, event.attempt, held.version, event.details, :'owner'
    FROM held, jsonb_to_recordset(CAST(:'events' AS jsonb))
        AS event (step text, action text, status text, attempt int, details jsonb)
    RETURNING id, created_at
), enqueued AS (
    INSERT INTO saga_outbox (saga_id, task, arguments)
    SELECT held.id, given.task, given.arguments
    FROM held, json_to_recordset(CAST(:'outbox' AS json)) AS given (task text, arguments json)
    RETURNING id
)
SELECT CAST(jsonb_build_object(
    'status', held.status, 'state', held.state, 'attempts', held.recovery_attempts, 'inbox', held.inbox,
    'available_at', NULLIF(held.available_at, 'infinity'),
    'log', (SELECT jsonb_agg(jsonb_build_array(id, created_at) ORDER BY id) FROM logged),
    'outbox', (SELECT jsonb_agg(id ORDER BY id) FROM enqueued)
) AS text) AS applied
FROM held
