-- How many finished sagas ended longer ago than this.
SELECT count(*) AS sagas FROM saga_executions
WHERE finished_at IS NOT NULL AND finished_at < statement_timestamp() - make_interval(secs => :'age')
