-- Locks a saga. Another statement loads it: one that has waited for the lock does not see the newest log.
SELECT clock_timestamp() AS now FROM saga_executions WHERE id = :'id' FOR UPDATE
