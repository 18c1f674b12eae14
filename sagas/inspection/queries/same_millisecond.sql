-- The ids that begin with the same 48 bits as one of these: those of sagas that were started in the same millisecond.
SELECT other.id
FROM unnest(CAST(:'firsts' AS uuid[]), CAST(:'lasts' AS uuid[])) AS wanted (first, last)
CROSS JOIN LATERAL (
    SELECT id FROM saga_executions WHERE id BETWEEN wanted.first AND wanted.last LIMIT :'limit'
) AS other
