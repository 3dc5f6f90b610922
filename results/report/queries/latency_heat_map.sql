-- grain: requests of one configuration (all its counted trials) in $step_s s of phase measure with
--        a latency in one tenth of a decade
-- units: second: s since phase measure began, of the intended start; low_ns, high_ns: ns, the bounds
--        of the tenth; requests: how many
select
  t.node_class, t.workload, t.configuration,
  n.second // $step_s * $step_s as second,
  round(pow(10, n.tenth / 10))::bigint as low_ns,
  round(pow(10, (n.tenth + 1) / 10))::bigint as high_ns,
  sum(n.requests)::bigint as requests
from latency_tenths n
join trials t using (run_id, trial_id)
where n.run_id = $run and t.counted and n.second >= 0
group by t.node_class, t.workload, t.configuration, n.second // $step_s, n.tenth
order by t.node_class, t.workload, t.configuration, n.second // $step_s, n.tenth;
