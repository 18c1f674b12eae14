-- Lease owners, and what each holds. No lease lasts longer than a day, so sagas that wait for longer are not read.
SELECT lease_owner AS owner, count(*) AS sagas, array_agg(DISTINCT name ORDER BY name) AS names,
    count(*) FILTER (WHERE available_at <= statement_timestamp()) AS expired,
    max(updated_at) AS heard_at, min(updated_at) AS quietest_since, min(available_at) AS first_lease_ends
FROM saga_executions
WHERE status <> 'PENDING' AND state IN ('ready', 'running', 'waiting') AND state = 'running'
    AND available_at < statement_timestamp() + interval '1 day'
GROUP BY lease_owner
ORDER BY lease_owner
