-- Lease owners, and what each holds.
SELECT lease_owner AS owner, count(*) AS sagas, array_agg(DISTINCT name ORDER BY name) AS names,
    count(*) FILTER (WHERE available_at <= statement_timestamp()) AS expired,
    max(updated_at) AS heard_at, min(updated_at) AS quietest_since, min(available_at) AS first_lease_ends
FROM saga_executions
WHERE status <> 'PENDING' AND state IN ('ready', 'running', 'waiting') AND state = 'running'
GROUP BY lease_owner
ORDER BY lease_owner
