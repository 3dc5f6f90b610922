-- grain: one limit of a trial
-- run_id | | run of the trial
-- trial_id | | trial
-- configuration | | configuration of the trial
-- name | | memory_max_bytes, memory_high_bytes, cpus or working_set_max_bytes
-- asked | bytes or cores | the limit as asked for
-- read_back | bytes or cores | the limit as the system told it after it was set
-- enforced | | whether it is in force
-- mechanism | | what enforces it
-- reason | | why it is not in force
create view limits as
select * from raw_limits order by run_id, trial_id, name;
