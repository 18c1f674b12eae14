-- How many signals and requests were delivered to a saga, for its holder. Fenced.
SELECT inbox FROM saga_executions WHERE id = :'id' AND version = :'version' AND lease_token = :'token'
