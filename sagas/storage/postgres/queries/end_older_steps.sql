-- Ends the transactions of transactional steps that earlier holders of a saga left open: a worker that is frozen, or cut
-- off, keeps the locks on the rows that it wrote. Theirs are named like this one but for the version.
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name LIKE :'earlier' AND application_name <> :'name' AND usename = current_user
    AND datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
