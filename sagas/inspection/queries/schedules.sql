-- The last tick of each schedule that scans know.
SELECT name, last_tick FROM saga_schedules ORDER BY name
