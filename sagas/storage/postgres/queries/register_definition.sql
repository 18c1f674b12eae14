-- Stores a definition once. One that is there already is left alone, without a write.
INSERT INTO saga_definitions (hash, name, graph)
VALUES (:'hash', :'name', CAST(:'graph' AS json))
ON CONFLICT (hash) DO NOTHING
