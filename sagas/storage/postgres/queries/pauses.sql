-- The saga names that are paused.
SELECT name, by, because, since FROM saga_pauses ORDER BY name
