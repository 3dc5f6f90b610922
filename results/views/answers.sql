-- grain: one counted trial that sent requests
-- run_id | | run of the trial
-- trial_id | | trial
-- requests | | requests of phase measure
-- failed | | those of them that failed
-- succeeded | | requests of any phase whose good answer came in measure: what still waits at its end was not carried in it
-- latency_ns | ns | list of 81 percentiles of the requests of measure, from the intended start: number i, from 0, is at 1 - 10^(-i/20), so that 40 is p99 and 60 p99.9; number 6 is the median
-- service_ns | ns | the same of the service time, from the real start
create view answers as
select
  run_id, trial_id,
  count(*) filter (phase = 'measure') as requests,
  count(*) filter (phase = 'measure' and error is not null) as failed,
  count(*) filter (
    error is null
    and start_ns + service_ns >= measure_start_ns and start_ns + service_ns < measure_end_ns
  ) as succeeded,
  quantile_cont(
    latency_ns, [if(i = 6, 0.5, 1 - pow(10, -i / 20.0)) for i in range(0, 81)]
  ) filter (phase = 'measure') as latency_ns,
  quantile_cont(
    service_ns, [if(i = 6, 0.5, 1 - pow(10, -i / 20.0)) for i in range(0, 81)]
  ) filter (phase = 'measure') as service_ns
from requests
where counted
group by all;
