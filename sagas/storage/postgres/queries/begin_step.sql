-- Names the transaction of a transactional step, until it ends, for `fence_step.sql` and for whoever reads
-- pg_stat_activity.
SELECT set_config('application_name', :'name', true)
