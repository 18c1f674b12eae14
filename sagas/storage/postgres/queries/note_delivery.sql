-- Notes that a message has reached a worker, and when the newest such message was queued. Of a message that does not
-- tell, the row does (`rules.queued_at`).
INSERT INTO saga_deliveries (pending, queued_at, at)
VALUES (
    :'pending',
    COALESCE(
        :'queued_at',
        (
            SELECT available_at - make_interval(secs => :'probe') FROM saga_executions
            WHERE id = :'id' AND version = :'version' AND state = 'queued'
                AND available_at - updated_at <= make_interval(secs => 1.5 * :'probe')
        )
    ),
    clock_timestamp()
)
ON CONFLICT (pending) DO UPDATE SET
    queued_at = GREATEST(saga_deliveries.queued_at, EXCLUDED.queued_at), at = EXCLUDED.at
