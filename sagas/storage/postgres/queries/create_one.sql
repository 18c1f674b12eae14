-- Stores one new saga, unless its key is taken. Most programs start one at a time, and arrays are slower.
INSERT INTO saga_executions (
    id, name, idempotency_key, definition, definition_version, context, traceparent,
    status, state, version, lease_owner, lease_token, tags, available_at, deadline_at
)
VALUES (
    CAST(:'new_id' AS uuid), :'name', :'key', :'definition', :'definition_version', CAST(:'context' AS json), :'traceparent',
    :'status', :'state', :'version', :'owner', CAST(:'token' AS uuid),
    CAST(:'tag' AS jsonb),
    COALESCE(CAST(CAST(:'at' AS text) AS timestamptz), clock_timestamp() + make_interval(secs => :'seconds')),
    COALESCE(CAST(CAST(:'at' AS text) AS timestamptz), clock_timestamp() + make_interval(secs => :'after'))
        + make_interval(secs => CAST(CAST(:'deadline' AS text) AS float8))
)
-- ON CONFLICT needs the condition of the index to find it.
ON CONFLICT (name, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING CAST(id AS text) AS id
