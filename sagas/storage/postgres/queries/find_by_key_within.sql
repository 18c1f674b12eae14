-- As find_by_key.sql, in a transaction of the caller. The first column tells which tables it sees, even without a match.
SELECT
    concat_ws('/', CAST(extract(epoch FROM pg_postmaster_start_time()) * 1000000 AS bigint),
        (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()),
        CAST(CAST('saga_executions' AS regclass) AS oid)) AS here,
    found.id, found.name, found.idempotency_key
FROM (SELECT 1) AS one
LEFT JOIN (
    SELECT e.id, e.name, e.idempotency_key
    FROM saga_executions e
    JOIN unnest(CAST(:'names' AS text[]), CAST(:'keys' AS text[])) AS wanted (name, key)
        ON e.name = wanted.name AND e.idempotency_key = wanted.key
) AS found ON true
