-- A definition by its hash.
SELECT hash, name, CAST(graph AS text) AS graph FROM saga_definitions WHERE hash = :'hash'
