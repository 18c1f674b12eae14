-- Counts unfinished sagas, for statistics, metrics and the doctor.
-- `since` is when a queued saga was queued, and when any other is due. A probe writes updated_at, and doubles the wait
-- from there to available_at, which tells what waits came before (lost_messages.probe).
WITH counted AS (
    SELECT name, status, state, definition, definition_version,
        state = 'ready' AND COALESCE(starts_with(last_error, 'declined: '), false) AS declined,
        count(*) AS sagas,
        count(*) FILTER (WHERE available_at <= statement_timestamp() - make_interval(secs => :'late')) AS due,
        count(*) FILTER (WHERE updated_at > statement_timestamp() - make_interval(secs => :'lately')) AS lately,
        min(CASE
            WHEN state = 'queued' THEN updated_at - (available_at - updated_at) + make_interval(secs => :'probe')
            ELSE available_at
        END) AS since,
        -- The place of a row, not its id: PostgreSQL before version 18 has no min of a uuid.
        min(ctid) AS place
    FROM saga_executions
    WHERE status = 'PENDING' AND state = 'ready'
        OR status <> 'PENDING' AND state IN ('ready', 'running', 'waiting')
        OR state = 'queued'
        OR state IN ('paused', 'dead')
    GROUP BY 1, 2, 3, 4, 5, 6
)
SELECT name, status, state, definition, definition_version, declined, sagas, due, lately,
    NULLIF(since, 'infinity') AS since, example.id AS example, example.last_error
FROM counted
-- LIMIT keeps the planner from joining by reading the whole table.
CROSS JOIN LATERAL (
    SELECT e.id, e.last_error FROM saga_executions e WHERE e.ctid = counted.place LIMIT 1
) AS example
ORDER BY name, status, state
