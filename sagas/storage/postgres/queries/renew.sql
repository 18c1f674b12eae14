-- Extends a lease, and returns whether a yield is requested. Fenced.
UPDATE saga_executions
SET available_at = clock_timestamp() + make_interval(secs => :'lease'), updated_at = clock_timestamp()
WHERE id = :'id' AND version = :'version' AND lease_token = :'token'
RETURNING name IN (SELECT p.name FROM saga_pauses p) OR EXISTS (
    SELECT FROM saga_asks a WHERE a.saga_id = saga_executions.id AND a.until > statement_timestamp()
) AS yield_requested
