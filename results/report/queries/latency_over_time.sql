-- grain: $step_s s of phase measure of one configuration: medians over its counted trials of the
--        percentiles of each second
-- units: second: s since phase measure began, of the intended start; *_ns: ns; requests: per second
--        and trial
select
  t.node_class, s.workload, s.configuration, s.second // $step_s * $step_s as second,
  round(median(s.latency_p50_ns))::bigint as p50_ns,
  round(median(s.latency_p99_ns))::bigint as p99_ns,
  round(median(s.service_p99_ns))::bigint as service_p99_ns,
  max(s.latency_max_ns) as slowest_ns,
  round(median(s.requests))::bigint as requests
from latency_by_second s
join trials t using (run_id, trial_id)
where s.run_id = $run and t.counted and s.second >= 0
group by all
order by 1, 2, 3, 4;
