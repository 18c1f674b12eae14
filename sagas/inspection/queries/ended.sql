-- Sagas that ended within so many seconds, counted. Those that were acquired more than once were recovered.
SELECT name, status, count(*) AS sagas, count(*) FILTER (WHERE version >= 2) AS recovered
FROM saga_executions
WHERE finished_at IS NOT NULL AND finished_at > statement_timestamp() - make_interval(secs => :'seconds')
GROUP BY name, status
ORDER BY name, status
