-- grain: one run
-- run_id | | name of the run, and of its folder in the archive
-- archive | | folder of the archive in which it is
-- status | | running, complete, decided (ended early: no trial that was left could change its sign-off), incomplete or interrupted
-- service | | name of the service under test
-- started_ns | ns since epoch, UTC | when the run began
-- finished_ns | ns since epoch, UTC | when it ended; null while it runs or after it was killed
-- heapgate_version | | version of Heapgate that measured
-- matrix_path | | where the matrix was when the run began
-- seed | | seed of the order of trials and of the traffic
-- blocks | | blocks that were planned
-- planned | | trials that were planned
create view runs as
select * from raw_runs order by started_ns, run_id;
