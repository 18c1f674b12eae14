-- One snapshot for all statements of a question, and no writing.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY
