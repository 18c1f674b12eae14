-- Notes that a message has reached a worker, and when the newest such message was queued.
INSERT INTO saga_deliveries (pending, queued_at, at) VALUES (:'pending', :'queued_at', clock_timestamp())
ON CONFLICT (pending) DO UPDATE SET
    queued_at = GREATEST(saga_deliveries.queued_at, EXCLUDED.queued_at), at = EXCLUDED.at
