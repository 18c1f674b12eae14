-- How a saga stands, for a program that waits for its end: neither its context nor its log.
SELECT status, state FROM saga_executions WHERE id = :'id'
