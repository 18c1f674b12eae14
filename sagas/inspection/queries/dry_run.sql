-- What a scan would do now: the choices of claim_due.sql, claim_new.sql and claim_lost.sql without their locks. For all
-- other unfinished sagas: why a scan skips them.
WITH due AS MATERIALIZED (
    (SELECT id AS due_id, row_number() OVER () AS place FROM (
        SELECT id FROM saga_executions
        WHERE status <> 'PENDING' AND state IN ('ready', 'running', 'waiting') AND available_at <= statement_timestamp()
        ORDER BY available_at
        LIMIT (
            SELECT GREATEST(:'limit' - count(*), 0)
            FROM (SELECT FROM saga_executions WHERE state = 'queued' AND status <> 'PENDING' LIMIT :'limit') AS waiting
        )
    ) AS recoverable)
    UNION ALL
    (SELECT id, row_number() OVER () FROM (
        SELECT id FROM saga_executions
        WHERE status = 'PENDING' AND state = 'ready' AND available_at <= statement_timestamp()
        ORDER BY available_at
        LIMIT (
            SELECT GREATEST(:'limit' - count(*), 0)
            FROM (SELECT FROM saga_executions WHERE state = 'queued' AND status = 'PENDING' LIMIT :'limit') AS waiting
        )
    ) AS pending)
), resent AS MATERIALIZED (
    SELECT again.id FROM (VALUES (true), (false)) AS queue (pending)
    LEFT JOIN saga_deliveries delivered ON delivered.pending = queue.pending
    CROSS JOIN LATERAL (
        (SELECT id FROM saga_executions
        WHERE state = 'queued' AND (status = 'PENDING') = queue.pending AND available_at
            < delivered.queued_at + make_interval(secs => CAST(:'probe' AS float8) - :'overtaking')
        ORDER BY available_at LIMIT :'limit')
        UNION ALL
        (SELECT id FROM saga_executions
        WHERE state = 'queued' AND (status = 'PENDING') = queue.pending AND available_at <= statement_timestamp()
            AND (delivered.at > statement_timestamp() - make_interval(secs => :'probe')) IS NOT TRUE
            AND NOT EXISTS (
                SELECT FROM saga_executions probed
                WHERE probed.state = 'queued' AND (probed.status = 'PENDING') = queue.pending
                    AND probed.available_at > statement_timestamp() + make_interval(secs => CAST(:'probe' AS float8))
            )
            AND (available_at < delivered.queued_at
                + make_interval(secs => CAST(:'probe' AS float8) - :'overtaking')) IS NOT TRUE
        ORDER BY available_at LIMIT :'probes')
    ) AS again
), judged AS (
    SELECT id, name, status, state, lease_owner, available_at, last_error, place, CASE
        WHEN place IS NOT NULL AND status <> 'PENDING' AND :'max_attempts' <= recovery_attempts + CAST(
            state = 'running' AND version >= 2 AND lease_owner NOT LIKE '%/shared' AS int) THEN 'dies'
        WHEN place IS NOT NULL AND name IN (SELECT p.name FROM saga_pauses p) THEN 'pauses'
        WHEN place IS NOT NULL THEN 'dispatched'
        WHEN state = 'queued' AND id IN (SELECT resent.id FROM resent) THEN 'overdue'
        WHEN state IN ('queued', 'paused', 'dead') THEN state
        WHEN available_at <= statement_timestamp() THEN 'beyond the limit'
        WHEN state = 'running' THEN 'held'
        WHEN state = 'waiting' THEN state
        WHEN starts_with(last_error, 'declined: ') THEN 'declined'
        WHEN status = 'FAILED' THEN 'backing off'
        ELSE 'sleeping' END AS verdict
    FROM saga_executions LEFT JOIN due ON due_id = id
    WHERE status = 'PENDING' AND state = 'ready'
        OR status <> 'PENDING' AND state IN ('ready', 'running', 'waiting')
        OR state = 'queued'
        OR state IN ('paused', 'dead')
), counted AS (
    SELECT *, count(*) OVER (PARTITION BY verdict) AS sagas,
        row_number() OVER (PARTITION BY verdict ORDER BY status = 'PENDING', place, available_at, id) AS nth
    FROM judged
)
SELECT verdict, sagas, id, name, status, state, lease_owner, NULLIF(available_at, 'infinity') AS available_at, last_error
FROM counted
WHERE nth <= :'shown'
ORDER BY verdict, nth
