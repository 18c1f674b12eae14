-- Writes transitions of many sagas in one commit, each with its own fence: those that arrived while the last
-- commit was under way. A saga that is locked is skipped, and one whose fence fails is left alone. The caller then
-- writes the transitions that are not returned, one by one.
WITH asked AS MATERIALIZED (
    SELECT place, id, version, token, owner, status, state, after, resets, counts, max_attempts,
        CAST(context AS json) AS context, last_error, clears_error, seen, CAST(events AS jsonb) AS events,
        CASE WHEN in_flight IS NOT NULL
            THEN ARRAY(SELECT jsonb_array_elements_text(CAST(in_flight AS jsonb))) END AS in_flight
    FROM unnest(
        CAST(:'ids' AS uuid[]), CAST(:'versions' AS bigint[]), CAST(:'tokens' AS uuid[]), CAST(:'owners' AS text[]),
        CAST(:'statuses' AS text[]), CAST(:'states' AS text[]), CAST(:'afters' AS float8[]),
        CAST(:'resets' AS boolean[]), CAST(:'counts' AS boolean[]), CAST(:'max_attempts' AS int[]),
        CAST(:'contexts' AS text[]), CAST(:'in_flights' AS text[]), CAST(:'last_errors' AS text[]),
        CAST(:'clear_errors' AS boolean[]), CAST(:'seens' AS bigint[]), CAST(:'events' AS text[])
    ) WITH ORDINALITY AS given (
        id, version, token, owner, status, state, after, resets, counts, max_attempts,
        context, in_flight, last_error, clears_error, seen, events, place
    )
), locked AS MATERIALIZED (
    SELECT e.id FROM saga_executions e
    JOIN asked ON e.id = asked.id AND e.version = asked.version AND e.lease_token = asked.token
    WHERE e.id = ANY (CAST(:'ids' AS uuid[]))
    ORDER BY COALESCE(e.root_id, e.id), e.depth, e.id
    FOR UPDATE OF e SKIP LOCKED
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
    WHERE e.id = asked.id AND e.version = asked.version AND e.lease_token = asked.token
        AND (asked.seen IS NULL OR e.inbox = asked.seen)
        AND e.id = ANY (ARRAY(SELECT id FROM locked))
    RETURNING e.*, asked.place, asked.owner, asked.events
), logged AS (
    INSERT INTO saga_logs (saga_id, step_name, action, status, attempt, version, details, worker)
    SELECT held.id, event.step, event.action, event.status, event.attempt, held.version, event.details, held.owner
    FROM held, jsonb_to_recordset(held.events)
        AS event (step text, action text, status text, attempt int, details jsonb)
    RETURNING id, saga_id, created_at
), rows AS (
    SELECT saga_id, jsonb_agg(jsonb_build_array(id, created_at) ORDER BY id) AS log FROM logged GROUP BY saga_id
)
SELECT held.place, CAST(jsonb_build_object(
    'status', held.status, 'state', held.state, 'attempts', held.recovery_attempts, 'inbox', held.inbox,
    'available_at', NULLIF(held.available_at, 'infinity'), 'log', rows.log
) AS text) AS applied
FROM held LEFT JOIN rows ON rows.saga_id = held.id
