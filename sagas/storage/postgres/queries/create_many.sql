-- Stores new sagas, except those whose keys are taken.
INSERT INTO saga_executions (
    id, name, idempotency_key, definition, definition_version, context, traceparent,
    status, state, version, lease_owner, lease_token, tags, available_at, deadline_at
)
SELECT
    new.id, new.name, new.key, new.definition, new.definition_version, CAST(new.context AS json), new.traceparent,
    :'status', :'state', :'version', :'owner', CAST(:'token' AS uuid),
    CAST(new.tags AS jsonb),
    COALESCE(CAST(CAST(:'at' AS text) AS timestamptz), clock.now + make_interval(secs => :'seconds')),
    COALESCE(CAST(CAST(:'at' AS text) AS timestamptz), clock.now + make_interval(secs => :'after'))
        + make_interval(secs => CAST(new.deadline AS float8))
FROM unnest(
    CAST(:'ids' AS uuid[]), CAST(:'names' AS text[]), CAST(:'keys' AS text[]), CAST(:'definitions' AS text[]),
    CAST(:'definition_versions' AS text[]), CAST(:'contexts' AS text[]), CAST(:'traceparents' AS text[]),
    CAST(:'tags' AS text[]), CAST(:'deadlines' AS text[])
) AS new (id, name, key, definition, definition_version, context, traceparent, tags, deadline)
CROSS JOIN (SELECT clock_timestamp() AS now) AS clock -- read once for each saga
ON CONFLICT (name, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id
