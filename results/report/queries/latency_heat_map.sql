-- grain: requests of one configuration (all its counted trials) in $step_s s of phase measure with
--        a latency in one tenth of a decade
-- units: second: s since phase measure began, of the intended start; low_ns, high_ns: ns, the bounds
--        of the tenth; requests: how many
with placed as (
  select
    r.node_class, r.workload, r.configuration,
    (coalesce(r.intended_ns, r.start_ns) - r.measure_start_ns) // 1000000000
      // $step_s * $step_s as second,
    floor(log10(greatest(r.latency_ns, 1)) * 10) as tenth
  from requests r
  where r.run_id = $run and r.counted and r.phase = 'measure'
)
select
  node_class, workload, configuration, second,
  round(pow(10, tenth / 10))::bigint as low_ns,
  round(pow(10, (tenth + 1) / 10))::bigint as high_ns,
  count(*) as requests
from placed
where second >= 0
group by node_class, workload, configuration, second, tenth
order by node_class, workload, configuration, second, tenth;
