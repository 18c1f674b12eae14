-- The queues: of sagas that never ran, and of those to be recovered. For `since` see unfinished.sql.
SELECT status = 'PENDING' AS pending, count(*) AS sagas,
    min(updated_at - (available_at - updated_at) + make_interval(secs => :'probe')) AS since,
    count(*) FILTER (WHERE available_at <= statement_timestamp()) AS overdue
FROM saga_executions
WHERE state = 'queued'
GROUP BY 1
ORDER BY 1 DESC
