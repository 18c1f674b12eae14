-- Bounds a transaction of several statements: the server ends one whose client freezes, and frees its locks.
SELECT set_config('idle_in_transaction_session_timeout', '10s', true), set_config('lock_timeout', '10s', true)
