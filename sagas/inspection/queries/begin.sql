-- Begins a read-only transaction with one snapshot for all statements of a question.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY
