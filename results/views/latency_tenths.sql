-- grain: one second of phase measure of one trial, and one tenth of a decade of latency that occurred
-- run_id | | run of the trial
-- trial_id | | trial
-- second | s | seconds since phase measure began, of the intended start (closed loop: the start)
-- tenth | | tenth of a decade: latencies from 10^(tenth/10) ns up to the next; 60 begins at 1 ms
-- requests | | requests with such a latency
create view latency_tenths as
select
  r.run_id, r.trial_id,
  (coalesce(r.intended_ns, r.start_ns) - r.measure_start_ns) // 1000000000 as second,
  floor(log10(greatest(r.latency_ns, 1)) * 10)::bigint as tenth,
  count(*) as requests
from requests r
where r.phase = 'measure'
group by all
order by r.run_id, r.trial_id, second, tenth;
