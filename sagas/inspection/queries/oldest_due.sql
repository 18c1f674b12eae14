-- The saga that is not queued and has been due for the longest, of those that never ran, and of the others.
(SELECT true AS pending, id, name, available_at AS due_since FROM saga_executions
WHERE status = 'PENDING' AND state = 'ready' AND available_at <= statement_timestamp()
ORDER BY available_at LIMIT 1)
UNION ALL
(SELECT false, id, name, available_at FROM saga_executions
WHERE status <> 'PENDING' AND state IN ('ready', 'running', 'waiting') AND available_at <= statement_timestamp()
ORDER BY available_at LIMIT 1)
