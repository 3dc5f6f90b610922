-- grain: one second of phase measure of one trial
-- run_id | | run of the trial
-- trial_id | | trial
-- configuration | | configuration of the trial
-- workload | | workload of the trial
-- block | | block of the trial
-- valid | | whether the trial's numbers may be used
-- second | s | seconds since phase measure began, of the intended start (closed loop: the start)
-- requests | | requests that belong to this second
-- failed | | those that failed
-- latency_p50_ns | ns | median of latency, from the intended start
-- latency_p99_ns | ns | 99th percentile; of less than 100 requests it is close to the maximum
-- latency_max_ns | ns | maximum
-- service_p99_ns | ns | 99th percentile of service time, from the real start
create view latency_by_second as
with grouped as (
  select
    r.run_id, r.trial_id, r.configuration, r.workload, r.block, r.valid,
    (coalesce(r.intended_ns, r.start_ns) - r.measure_start_ns) // 1000000000 as second,
    count(*) as requests,
    count(*) filter (r.error is not null) as failed,
    quantile_cont(r.latency_ns, [0.5, 0.99]) as latency_ns,
    max(r.latency_ns) as latency_max_ns,
    quantile_cont(r.service_ns, 0.99) as service_p99_ns
  from requests r
  where r.phase = 'measure'
  group by all
)
select
  run_id, trial_id, configuration, workload, block, valid, second, requests, failed,
  latency_ns[1] as latency_p50_ns,
  latency_ns[2] as latency_p99_ns,
  latency_max_ns, service_p99_ns
from grouped
order by run_id, trial_id, second;
