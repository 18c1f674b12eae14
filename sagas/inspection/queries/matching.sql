-- Sagas that a text may mean: by a range of ids, which the primary key has, and by an idempotency key, which its index
-- has below each name; `keyed` skips from one name to the next in that index.
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
SELECT id, name, status FROM (
    (SELECT id, name, status FROM saga_executions
    WHERE id BETWEEN CAST(:'first' AS uuid) AND CAST(:'last' AS uuid)
        AND right(replace(CAST(id AS text), '-', ''), length(:'ends')) = :'ends'
    ORDER BY id LIMIT :'limit')
    UNION
    (SELECT e.id, e.name, e.status FROM keyed JOIN saga_executions e ON e.name = keyed.name
    WHERE e.idempotency_key = CAST(:'key' AS text) LIMIT :'limit')
) AS found
ORDER BY id
LIMIT :'limit'
