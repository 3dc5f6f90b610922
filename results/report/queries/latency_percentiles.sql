-- grain: one percentile of one kind of time (latency from the intended start, service time from
--        the real start) of one configuration: the median over its counted trials
-- units: share: fraction of requests that were faster; one_in: 1 / (1 - share); *_ns: ns;
--        slower: requests of the smallest trial that are slower still: below 10, read with care
with quantiles as (
  select
    node_class, workload, configuration, trial_id, count(*) as requests,
    quantile_cont(
      latency_ns, [if(i = 6, 0.5, 1 - pow(10, -i / 20.0)) for i in range(0, 81)]
    ) as latency,
    quantile_cont(
      service_ns, [if(i = 6, 0.5, 1 - pow(10, -i / 20.0)) for i in range(0, 81)]
    ) as service
  from requests
  where run_id = $run and counted and phase = 'measure'
  group by all
),
points as (
  select q.*, i, if(i = 6, 2, round(pow(10, i / 20.0), 4)) as one_in, kind,
    if(kind = 'latency', latency[i + 1], service[i + 1]) as value_ns
  from quantiles q
  cross join range(0, 81) as steps(i)
  cross join (values ('latency'), ('service time')) as kinds(kind)
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
