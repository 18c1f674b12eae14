-- What a signal is checked against: neither the context nor the log of its saga.
SELECT CAST(jsonb_build_array(name, status, state, definition, definition_version) AS text) AS head
FROM saga_executions
WHERE id = :'id'
