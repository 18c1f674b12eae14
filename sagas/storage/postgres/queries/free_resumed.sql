-- Makes ready, some at a time, what is paused although its name no longer is. Every scan does it, so that a resume that
-- was cut off is finished. The names are found by leaping through the index: a million paused sagas cost nothing.
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
