-- The last tick of each of these schedules, and the time. A schedule that is not known yet gets the present time. If two scans
-- do this for a new schedule at once, one of them does not see it, and leaves it to the next scan.
WITH new AS (
    INSERT INTO saga_schedules (name, last_tick)
    SELECT DISTINCT given.name, statement_timestamp() FROM unnest(CAST(:'names' AS text[])) AS given (name)
    WHERE NOT EXISTS (SELECT FROM saga_schedules known WHERE known.name = given.name)
    ON CONFLICT (name) DO NOTHING
    RETURNING name, last_tick
), seen AS (
    SELECT name, last_tick FROM saga_schedules WHERE name = ANY (CAST(:'names' AS text[]))
    UNION ALL
    SELECT name, last_tick FROM new
)
SELECT clock.now, seen.name, seen.last_tick FROM (SELECT statement_timestamp() AS now) clock LEFT JOIN seen ON true
