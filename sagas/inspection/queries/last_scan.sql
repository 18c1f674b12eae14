-- The last scan of any host.
SELECT worker AS host, at FROM saga_scans ORDER BY at DESC LIMIT 1
