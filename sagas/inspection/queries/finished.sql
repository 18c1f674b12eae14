-- All finished sagas, counted by status: the one question that reads an index of the whole history.
SELECT status, count(*) AS sagas FROM saga_executions WHERE finished_at IS NOT NULL GROUP BY status
