-- Counts the first unfinished sagas of each of the four indexes, those that are due for the longest first: no more than
-- `most` of each. `expected` is how many the index has in all, as the last ANALYZE found it; -1 if there was none.
WITH first AS (
    (SELECT 'saga_executions_unstarted' AS part, name, status, state, available_at FROM saga_executions
    WHERE status = 'PENDING' AND state = 'ready' ORDER BY available_at LIMIT :'most')
    UNION ALL
    (SELECT 'saga_executions_due', name, status, state, available_at FROM saga_executions
    WHERE status <> 'PENDING' AND state IN ('ready', 'running', 'waiting') ORDER BY available_at LIMIT :'most')
    UNION ALL
    (SELECT 'saga_executions_queued', name, status, state, available_at FROM saga_executions
    WHERE state = 'queued' ORDER BY status, available_at LIMIT :'most')
    UNION ALL
    (SELECT 'saga_executions_stopped', name, status, state, available_at FROM saga_executions
    WHERE state IN ('paused', 'dead') ORDER BY state, name LIMIT :'most')
)
SELECT part, name, status, state, count(*) AS sagas, sum(count(*)) OVER (PARTITION BY part) AS counted,
    count(*) FILTER (WHERE available_at <= statement_timestamp()) AS due,
    NULLIF(min(available_at), 'infinity') AS first_due,
    COALESCE((SELECT CAST(c.reltuples AS bigint) FROM pg_class c WHERE c.oid = to_regclass(part)), -1) AS expected
FROM first
GROUP BY part, name, status, state
ORDER BY name, status, state
