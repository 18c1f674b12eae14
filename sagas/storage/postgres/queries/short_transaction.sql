-- Bounds a transaction of several statements: whoever freezes in one is cut off by the server, and its locks with it.
SELECT set_config('idle_in_transaction_session_timeout', '10s', true), set_config('lock_timeout', '10s', true)
