-- Whether scans run and messages arrive, and about how many sagas there are: as the last ANALYZE found it, or -1.
SELECT scanned.host, scanned.at AS scanned_at,
    (SELECT max(at) FROM saga_deliveries) AS delivered_at,
    COALESCE((SELECT CAST(c.reltuples AS bigint) FROM pg_class c WHERE c.oid = to_regclass('saga_executions')), -1) AS sagas
FROM (SELECT) AS one
LEFT JOIN LATERAL (SELECT worker AS host, at FROM saga_scans ORDER BY at DESC LIMIT 1) AS scanned ON true
