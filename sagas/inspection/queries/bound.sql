-- Has the server cancel the statements of this transaction that take longer; as the limit is of this transaction
-- only, it also works behind a pooler.
SELECT set_config('statement_timeout', :'milliseconds', true), transaction_timestamp() AS now
