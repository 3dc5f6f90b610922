-- grain: one counted trial that sent requests
-- run_id | | run of the trial
-- trial_id | | trial
-- requests | | requests of phase measure
-- failed | | those of them that failed
-- succeeded | | requests of any phase whose good answer came in measure: what still waits at its end was not carried in it
-- latency | ns | list: median, 99th and 99.9th percentile of the requests of measure, from the intended start
-- service | ns | the same of the service time, from the real start
create view answers as
select
  run_id, trial_id,
  count(*) filter (phase = 'measure') as requests,
  count(*) filter (phase = 'measure' and error is not null) as failed,
  count(*) filter (
    error is null
    and start_ns + service_ns >= measure_start_ns and start_ns + service_ns < measure_end_ns
  ) as succeeded,
  quantile_cont(latency_ns, [0.5, 0.99, 0.999]) filter (phase = 'measure') as latency,
  quantile_cont(service_ns, [0.5, 0.99, 0.999]) filter (phase = 'measure') as service
from requests
where counted
group by all;
