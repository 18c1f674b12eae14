-- Gives a saga that version 0.1.0 started its definition. Fenced.
UPDATE saga_executions SET definition = :'definition'
WHERE id = :'id' AND version = :'version' AND lease_token = :'token'
