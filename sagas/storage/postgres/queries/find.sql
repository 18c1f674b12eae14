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
    AND (CAST(:'key' AS text) IS NULL OR idempotency_key = CAST(:'key' AS text))
    -- The index of keys has them below each name. Without a name, `keyed` skips from one name to the next in that index.
    AND (CAST(:'key' AS text) IS NULL OR CAST(:'name' AS text) IS NOT NULL OR id = ANY (ARRAY (
        WITH RECURSIVE keyed AS (
            (SELECT k.name FROM saga_executions k WHERE k.idempotency_key IS NOT NULL ORDER BY k.name LIMIT 1)
            UNION ALL
            SELECT (
                SELECT k.name FROM saga_executions k
                WHERE k.idempotency_key IS NOT NULL AND k.name > keyed.name
                ORDER BY k.name LIMIT 1
            )
            FROM keyed WHERE keyed.name IS NOT NULL
        )
        SELECT k.id FROM keyed JOIN saga_executions k ON k.name = keyed.name
        WHERE k.idempotency_key = CAST(:'key' AS text)
    )))
    AND (CAST(:'tags' AS jsonb) IS NULL OR tags @> CAST(:'tags' AS jsonb))
    -- No lease lasts longer than a day, so sagas that wait for longer are not read.
    AND (CAST(:'leased_by' AS text) IS NULL
        OR available_at < statement_timestamp() + interval '1 day'
            AND (lease_owner = :'leased_by' OR starts_with(lease_owner, :'leased_by' || '/')))
    AND (CAST(:'error' AS text) IS NULL
        OR finished_at IS NULL AND strpos(lower(last_error), lower(CAST(:'error' AS text))) > 0)
    AND (CAST(:'after' AS uuid) IS NULL OR id < :'after')
    AND (CAST(:'first_id' AS uuid) IS NULL OR id >= :'first_id')
    AND (CAST(:'last_id' AS uuid) IS NULL OR id <= :'last_id')
    AND (CAST(:'created_after' AS timestamptz) IS NULL OR created_at >= :'created_after')
    AND (CAST(:'created_before' AS timestamptz) IS NULL OR created_at < :'created_before')
    AND (CAST(:'updated_before' AS timestamptz) IS NULL OR COALESCE(finished_at, updated_at) < :'updated_before')
    -- No index has updated_at: finished sagas are in the index of their ends, the others in those of unfinished sagas.
    AND (CAST(:'updated_after' AS timestamptz) IS NULL
        OR finished_at IS NOT NULL AND finished_at >= :'updated_after'
        OR updated_at >= :'updated_after' AND (
            status = 'PENDING' AND state = 'ready'
            OR status <> 'PENDING' AND state IN ('ready', 'running', 'waiting')
            OR state = 'queued'
            OR state IN ('paused', 'dead')))
    -- The indexes of unfinished sagas that can have a match; null if finished sagas can match too.
    AND (CAST(:'indexes' AS text[]) IS NULL
        OR 'unstarted' = ANY (CAST(:'indexes' AS text[])) AND status = 'PENDING' AND state = 'ready'
        OR 'due' = ANY (CAST(:'indexes' AS text[])) AND status <> 'PENDING' AND state IN ('ready', 'running', 'waiting')
        OR 'queued' = ANY (CAST(:'indexes' AS text[])) AND state = 'queued'
        OR 'stopped' = ANY (CAST(:'indexes' AS text[])) AND state IN ('paused', 'dead'))
ORDER BY id DESC
LIMIT :'limit'
