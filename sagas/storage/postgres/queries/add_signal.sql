-- Stores a signal, unless it is known. It locks no saga, so a caller that keeps its transaction open delays nobody.
INSERT INTO saga_signals (saga_id, kind, name, signal_id, payload, by, because)
VALUES (
    CAST(CAST(:'saga' AS text) AS uuid), CAST(:'kind' AS text), CAST(:'name' AS text), CAST(:'signal' AS text),
    CAST(CAST(:'payload' AS text) AS json), CAST(:'actor' AS text), CAST(:'reason' AS text)
)
ON CONFLICT (saga_id, kind, name, signal_id) DO NOTHING
RETURNING CAST(id AS text) AS id
