-- Makes sagas ready, some at a time, that are paused although their name no longer is. Every scan runs it, so that a
-- resume that was interrupted is finished. It finds the names by skipping through the index, so paused sagas are cheap.
WITH RECURSIVE names (name) AS (
    SELECT min(name) FROM saga_executions WHERE state IN ('paused', 'dead') AND state = 'paused'
    UNION ALL
    SELECT (
        SELECT min(e.name) FROM saga_executions e
        WHERE e.state IN ('paused', 'dead') AND e.state = 'paused' AND e.name > names.name
    )
    FROM names WHERE names.name IS NOT NULL
), freed AS MATERIALIZED (
    SELECT id FROM saga_executions
    WHERE state IN ('paused', 'dead') AND state = 'paused' AND name = ANY (ARRAY(
        SELECT n.name FROM names n WHERE n.name IS NOT NULL AND n.name NOT IN (SELECT p.name FROM saga_pauses p)
    ))
    LIMIT :'limit'
    FOR UPDATE SKIP LOCKED
)
UPDATE saga_executions SET state = 'ready' WHERE id = ANY (ARRAY(SELECT id FROM freed))
