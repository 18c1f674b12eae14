-- Requests that the holder gives a saga back; expired requests are deleted.
WITH forgotten AS (DELETE FROM saga_asks WHERE until <= statement_timestamp() AND saga_id <> :'id')
INSERT INTO saga_asks (saga_id, by, until)
VALUES (:'id', :'actor', clock_timestamp() + make_interval(secs => :'seconds'))
ON CONFLICT (saga_id) DO UPDATE SET by = EXCLUDED.by, until = EXCLUDED.until
