-- All finished sagas, counted by status. Only this statement reads an index of all finished sagas.
SELECT status, count(*) AS sagas FROM saga_executions WHERE finished_at IS NOT NULL GROUP BY status
