-- grain: one percentile of one kind of time (latency from the intended start, service time from
--        the real start) of one configuration: the median over its counted trials
-- units: share: fraction of requests that were faster; one_in: 1 / (1 - share); *_ns: ns;
--        slower: requests of the smallest trial that are slower still: below 10, read with care
with points as (
  select t.node_class, t.workload, t.configuration, a.requests, i, kind,
    if(i = 6, 2, round(pow(10, i / 20.0), 4)) as one_in,
    if(kind = 'latency', a.latency_ns[i + 1], a.service_ns[i + 1]) as value_ns
  from answers a
  join trials t using (run_id, trial_id)
  cross join range(0, 81) as steps(i)
  cross join (values ('latency'), ('service time')) as kinds(kind)
  where a.run_id = $run and a.requests > 0
)
select
  node_class, workload, configuration, kind, round(1 - 1 / one_in, 6) as share, one_in,
  round(median(value_ns))::bigint as median_ns,
  round(min(value_ns))::bigint as low_ns,
  round(max(value_ns))::bigint as high_ns,
  round(min(requests) / one_in, 1) as slower
from points
group by node_class, workload, configuration, kind, i, one_in
having min(requests) / one_in >= 1
order by node_class, workload, configuration, kind, i;
