-- The saga names that are paused.
SELECT name, by AS actor, because AS reason, since FROM saga_pauses ORDER BY name
