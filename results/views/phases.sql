-- grain: one phase of a trial
-- run_id | | run of the trial
-- trial_id | | trial
-- phase | | deploy, startup, idle, warmup, measure, cooldown or teardown
-- start_ns | ns since epoch, UTC | when the phase began
-- end_ns | ns since epoch, UTC | when it ended
-- cpu_ns | ns | CPU time of the service in it; null where it did not run throughout
create view phases as
select * from raw_phases order by run_id, trial_id, start_ns;
