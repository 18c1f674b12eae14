-- What was sent to a saga, the oldest first.
SELECT id, saga_id, kind, name, signal_id, CAST(payload AS text) AS payload, by AS actor, because AS reason, sent_at
FROM saga_signals
WHERE saga_id = :'id'
ORDER BY id
