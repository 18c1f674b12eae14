-- The newest ends within so many seconds, counted: no more than `most`.
WITH newest AS (
    SELECT name, status, version, finished_at FROM saga_executions
    WHERE finished_at IS NOT NULL AND finished_at > statement_timestamp() - make_interval(secs => :'seconds')
    ORDER BY finished_at DESC
    LIMIT :'most'
)
SELECT name, status, count(*) AS sagas, count(*) FILTER (WHERE version >= 2) AS recovered,
    sum(count(*)) OVER () AS counted, min(min(finished_at)) OVER () AS since
FROM newest
GROUP BY name, status
ORDER BY name, status
