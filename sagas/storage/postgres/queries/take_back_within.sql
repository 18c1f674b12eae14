-- Deletes what this transaction of the caller's has just stored.
DELETE FROM saga_executions WHERE id = ANY (CAST(:'ids' AS uuid[])) RETURNING id
