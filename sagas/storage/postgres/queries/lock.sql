-- Locks a saga. It is loaded by a statement of its own: one that has waited for the lock does not see the newest log.
SELECT clock_timestamp() AS now FROM saga_executions WHERE id = :'id' FOR UPDATE
