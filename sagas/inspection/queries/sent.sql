-- What was sent to a saga, the newest first, and whether its inbox counts it.
SELECT id, kind, name, signal_id, CAST(payload AS text) AS payload, by AS actor, because AS reason, sent_at, delivered
FROM saga_signals
WHERE saga_id = :'id'
ORDER BY id DESC
LIMIT :'limit'
