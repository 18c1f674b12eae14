-- Scans, pauses and resumes happen one at a time: a scan counts what the one before has queued.
SELECT pg_advisory_xact_lock(:'key')
