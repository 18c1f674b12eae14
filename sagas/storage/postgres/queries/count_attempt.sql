-- Counts one more failed attempt, up to the largest number that may be set, so that sums fit the column.
UPDATE saga_executions
SET recovery_attempts = LEAST(recovery_attempts + 1, 1000000000), updated_at = clock_timestamp()
WHERE id = :'id'
