-- Claims tasks that their worker has not sent. For a while after that, no other scan claims them.
WITH old AS MATERIALIZED (
    SELECT id FROM saga_outbox
    WHERE created_at < statement_timestamp() - make_interval(secs => :'age')
    ORDER BY id
    LIMIT :'limit'
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE saga_outbox SET created_at = clock_timestamp()
    WHERE id = ANY (ARRAY(SELECT id FROM old))
    RETURNING id, saga_id, task, CAST(arguments AS text) AS arguments
)
SELECT id, saga_id, task, arguments FROM claimed ORDER BY id
