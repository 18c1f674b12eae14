-- One saga with its log.
SELECT
    id, name, status, state, CAST(context AS text) AS context, version, recovery_attempts, lease_owner, lease_token,
    NULLIF(available_at, 'infinity') AS available_at, last_error, idempotency_key, definition, definition_version,
    in_flight, suspect, COALESCE(root_id, id) AS root_id, depth, created_at, updated_at, finished_at, traceparent,
    inbox, deadline_at, tags,
    COALESCE((SELECT jsonb_agg(to_jsonb(l) ORDER BY l.id) FROM saga_logs l WHERE l.saga_id = saga_executions.id), '[]') AS log
FROM saga_executions
WHERE id = :'id'
