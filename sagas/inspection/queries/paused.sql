-- The names that are paused, and those that were resumed while some of their sagas are still paused.
SELECT COALESCE(p.name, counted.name) AS name, COALESCE(counted.sagas, 0) AS paused, p.by AS actor, p.because AS reason,
    p.since
FROM (SELECT name, count(*) AS sagas FROM saga_executions WHERE state = 'paused' GROUP BY name) AS counted
FULL JOIN saga_pauses p ON p.name = counted.name
