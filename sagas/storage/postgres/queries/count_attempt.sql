-- Counts one more failed attempt, no further than the largest number that may be set: sums must fit the column too.
UPDATE saga_executions
SET recovery_attempts = LEAST(recovery_attempts + 1, 1000000000), updated_at = clock_timestamp()
WHERE id = :'id'
