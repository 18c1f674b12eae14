-- The graph that a saga was started with, and those of all its versions: each of them may mark fields as secret.
SELECT hash, CAST(graph AS text) AS graph FROM saga_definitions WHERE hash = :'definition' OR name = :'name'
