-- Records that a message has reached a worker, and when the newest such message was queued. A message that `start` sent has
-- no time: its saga was queued when it was created.
INSERT INTO saga_deliveries (pending, queued_at, at) VALUES (
    :'pending',
    COALESCE(
        CAST(:'queued_at' AS timestamptz),
        (SELECT created_at FROM saga_executions WHERE id = :'id' AND CAST(:'pending' AS boolean))
    ),
    clock_timestamp()
)
ON CONFLICT (pending) DO UPDATE SET
    queued_at = GREATEST(saga_deliveries.queued_at, EXCLUDED.queued_at), at = EXCLUDED.at
