-- The sagas that need recovery, the oldest first; nothing is marked or locked.
SELECT id FROM saga_executions
WHERE status <> 'PENDING' AND (state IN ('ready', 'running', 'waiting') OR state = 'queued')
    AND available_at <= statement_timestamp()
    AND recovery_attempts < :'max_attempts'
    AND (CAST(:'stale' AS float8) IS NULL OR updated_at < statement_timestamp() - make_interval(secs => :'stale'))
    AND (CAST(:'name' AS text) IS NULL OR name = :'name')
ORDER BY updated_at, id
LIMIT :'limit'
