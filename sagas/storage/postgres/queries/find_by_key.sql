-- The sagas that have these names and idempotency keys.
SELECT e.id, e.name, e.idempotency_key
FROM saga_executions e
JOIN unnest(CAST(:'names' AS text[]), CAST(:'keys' AS text[])) AS wanted (name, key)
    ON e.name = wanted.name AND e.idempotency_key = wanted.key
