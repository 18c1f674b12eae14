-- Deletes tasks that were sent.
DELETE FROM saga_outbox WHERE id = ANY (CAST(:'rows' AS bigint[]))
