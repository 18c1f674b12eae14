-- The fields that any version of these sagas marks as secret.
SELECT name, CAST(graph AS text) AS graph FROM saga_definitions
WHERE name = ANY (CAST(:'names' AS text[])) AND graph -> 'secret_fields' IS NOT NULL
