-- Stores new sagas, except those whose keys are taken.
INSERT INTO saga_executions (
    id, name, idempotency_key, definition, definition_version, context, traceparent,
    status, state, version, lease_owner, lease_token, available_at
)
SELECT
    new.id, new.name, new.key, new.definition, new.definition_version, CAST(new.context AS json), new.traceparent,
    :'status', :'state', :'version', :'owner', CAST(:'token' AS uuid),
    clock_timestamp() + make_interval(secs => :'seconds')
FROM unnest(
    CAST(:'ids' AS uuid[]), CAST(:'names' AS text[]), CAST(:'keys' AS text[]), CAST(:'definitions' AS text[]),
    CAST(:'definition_versions' AS text[]), CAST(:'contexts' AS text[]), CAST(:'traceparents' AS text[])
) AS new (id, name, key, definition, definition_version, context, traceparent)
ON CONFLICT (name, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id
