-- Has the server cancel the statements of this transaction that take longer; as it is for this transaction only, it
-- also holds behind a pooler.
SELECT set_config('statement_timeout', :'milliseconds', true), transaction_timestamp() AS now
