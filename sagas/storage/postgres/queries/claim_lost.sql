-- Queues sagas again that have lost their message (as in `lost_messages`). Probes the oldest while none is delivered.
-- The interval to the next probe is available_at - updated_at; it doubles with each probe. None is sent while another
-- saga was probed lately (`probed_lately`).
-- Such sagas of a paused name are paused instead.
WITH delivered AS (
    SELECT queued_at, at FROM saga_deliveries WHERE pending = :'pending'
), lost AS MATERIALIZED (
    SELECT id FROM saga_executions
    WHERE state = 'queued' AND status = ANY (CAST(:'statuses' AS text[]))
        AND available_at < (SELECT queued_at FROM delivered) + make_interval(secs => CAST(:'probe' AS float8) - :'overtaking')
    ORDER BY available_at
    LIMIT :'limit'
    FOR UPDATE SKIP LOCKED
), probed AS MATERIALIZED (
    SELECT id FROM saga_executions
    WHERE state = 'queued' AND status = ANY (CAST(:'statuses' AS text[]))
        AND available_at <= statement_timestamp()
        AND NOT EXISTS (
            SELECT FROM delivered WHERE at > statement_timestamp() - make_interval(secs => CAST(:'probe' AS float8))
        )
        AND NOT EXISTS (
            SELECT FROM saga_executions
            WHERE state = 'queued' AND status = ANY (CAST(:'statuses' AS text[]))
                AND available_at > statement_timestamp() + make_interval(secs => CAST(:'probe' AS float8))
        )
        AND id <> ALL (ARRAY(SELECT id FROM lost))
    ORDER BY available_at
    LIMIT :'probes'
    FOR UPDATE SKIP LOCKED
)
UPDATE saga_executions SET
    state = CASE WHEN name IN (SELECT p.name FROM saga_pauses p) THEN 'paused' ELSE 'queued' END,
    available_at = clock_timestamp() + CASE
        WHEN name IN (SELECT p.name FROM saga_pauses p) THEN interval '0'
        WHEN id = ANY (ARRAY(SELECT id FROM probed))
            THEN GREATEST(
                LEAST(2 * (available_at - updated_at), make_interval(secs => :'most_probe')),
                make_interval(secs => CAST(:'probe' AS float8))
            )
        ELSE make_interval(secs => CAST(:'probe' AS float8))
    END,
    updated_at = clock_timestamp()
WHERE id = ANY (ARRAY(SELECT id FROM lost UNION ALL SELECT id FROM probed)) AND state = 'queued'
RETURNING id, version, state, updated_at AS queued_at
