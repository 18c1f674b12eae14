-- The names of sagas that are in an index: none has those of finished sagas without an idempotency key.
-- `keyed` skips from one name to the next in the index of keys, as in matching.sql.
WITH RECURSIVE keyed AS (
    (SELECT name FROM saga_executions WHERE idempotency_key IS NOT NULL ORDER BY name LIMIT 1)
    UNION ALL
    SELECT (
        SELECT e.name FROM saga_executions e
        WHERE e.idempotency_key IS NOT NULL AND e.name > keyed.name
        ORDER BY e.name LIMIT 1
    )
    FROM keyed WHERE keyed.name IS NOT NULL
)
SELECT name FROM keyed WHERE name IS NOT NULL
UNION
SELECT name FROM saga_executions
WHERE status = 'PENDING' AND state = 'ready'
    OR status <> 'PENDING' AND state IN ('ready', 'running', 'waiting')
    OR state = 'queued'
    OR state IN ('paused', 'dead')
UNION
SELECT name FROM saga_pauses
ORDER BY 1
