-- Stores one new saga, unless its key is taken. Most programs start one at a time, and arrays are slower.
INSERT INTO saga_executions (
    id, name, idempotency_key, definition, definition_version, context, traceparent,
    status, state, version, lease_owner, lease_token, available_at
)
VALUES (
    CAST(:'new_id' AS uuid), :'name', :'key', :'definition', :'definition_version', CAST(:'context' AS json), :'traceparent',
    :'status', :'state', :'version', :'owner', CAST(:'token' AS uuid),
    clock_timestamp() + make_interval(secs => :'seconds')
)
-- ON CONFLICT needs the condition of the index to find it.
ON CONFLICT (name, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING CAST(id AS text) AS id
