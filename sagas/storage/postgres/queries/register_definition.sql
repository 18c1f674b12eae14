-- Stores a definition once. If it is stored already, nothing is written.
INSERT INTO saga_definitions (hash, name, graph)
VALUES (:'hash', :'name', CAST(:'graph' AS json))
ON CONFLICT (hash) DO NOTHING
