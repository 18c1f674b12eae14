-- Sets the number of failed attempts; a dead saga becomes ready.
UPDATE saga_executions
SET recovery_attempts = :'attempts',
    state = CASE WHEN state = 'dead' THEN 'ready' ELSE state END,
    available_at = CASE WHEN state = 'dead' THEN clock_timestamp() ELSE available_at END
WHERE id = :'id'
