-- Records the scan of a host, in the transaction of the claim, so that a scan that failed does not count.
INSERT INTO saga_scans (worker, at) VALUES (:'host', clock_timestamp())
ON CONFLICT (worker) DO UPDATE SET at = EXCLUDED.at
