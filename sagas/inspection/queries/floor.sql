-- The id after which so many sagas were started, of those before `after` and up to `last_id`; none if fewer were.
SELECT id FROM saga_executions
WHERE (CAST(:'after' AS uuid) IS NULL OR id < :'after') AND (CAST(:'last_id' AS uuid) IS NULL OR id <= :'last_id')
ORDER BY id DESC
OFFSET :'within' LIMIT 1
