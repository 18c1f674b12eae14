-- Sagas without their logs, the newest first.
SELECT
    id, name, status, state, CAST(context AS text) AS context, version, recovery_attempts, lease_owner, lease_token,
    NULLIF(available_at, 'infinity') AS available_at, last_error, idempotency_key, definition, definition_version,
    in_flight, suspect, COALESCE(root_id, id) AS root_id, depth, created_at, updated_at, finished_at, traceparent,
    inbox, deadline_at, tags
FROM saga_executions
WHERE (CAST(:'statuses' AS text[]) IS NULL OR status = ANY (CAST(:'statuses' AS text[])))
    AND (CAST(:'states' AS text[]) IS NULL OR state = ANY (CAST(:'states' AS text[])))
    AND (CAST(:'name' AS text) IS NULL OR name = :'name')
ORDER BY id DESC
LIMIT :'limit'
