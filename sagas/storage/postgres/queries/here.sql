-- Identifies the table of the sagas: the server (no two start in the same microsecond), the database there,
-- and the table, which a search_path chooses. Any user may run it, and the answer is the same through a pooler.
SELECT
    concat_ws('/', CAST(extract(epoch FROM pg_postmaster_start_time()) * 1000000 AS bigint),
        (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()),
        CAST(CAST('saga_executions' AS regclass) AS oid)) AS here
