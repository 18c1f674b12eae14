-- Sagas without their logs, the newest first. Not prepared, so the planner knows the values: a filter that is null is no
-- condition. Ids begin with the time of the start by some other clock, so the range of ids is wider than that of times.
SELECT
    id, name, status, state, CAST(context AS text) AS context, version, recovery_attempts, lease_owner, lease_token,
    NULLIF(available_at, 'infinity') AS available_at, last_error, idempotency_key, definition, definition_version,
    in_flight, suspect, COALESCE(root_id, id) AS root_id, depth, created_at, updated_at, finished_at, traceparent,
    inbox, deadline_at, tags
FROM saga_executions
WHERE (CAST(:'statuses' AS text[]) IS NULL OR status = ANY (CAST(:'statuses' AS text[])))
    AND (CAST(:'states' AS text[]) IS NULL OR state = ANY (CAST(:'states' AS text[])))
    AND (CAST(:'name' AS text) IS NULL OR name = :'name')
    AND (CAST(:'leased_by' AS text) IS NULL
        OR lease_owner = :'leased_by' OR starts_with(lease_owner, :'leased_by' || '/'))
    AND (CAST(:'after' AS uuid) IS NULL OR id < :'after')
    AND (CAST(:'started_from' AS timestamptz) IS NULL OR created_at >= :'started_from' AND id >= :'first_id')
    AND (CAST(:'started_until' AS timestamptz) IS NULL OR created_at <= :'started_until' AND id <= :'last_id')
    -- The indexes of unfinished sagas that can have a match; null if finished sagas can match too.
    AND (CAST(:'indexes' AS text[]) IS NULL
        OR 'unstarted' = ANY (CAST(:'indexes' AS text[])) AND status = 'PENDING' AND state = 'ready'
        OR 'due' = ANY (CAST(:'indexes' AS text[])) AND status <> 'PENDING' AND state IN ('ready', 'running', 'waiting')
        OR 'queued' = ANY (CAST(:'indexes' AS text[])) AND state = 'queued'
        OR 'stopped' = ANY (CAST(:'indexes' AS text[])) AND state IN ('paused', 'dead'))
ORDER BY id DESC
LIMIT :'limit'
