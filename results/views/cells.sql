-- grain: one metric of one configuration under one workload on one node class, in a run
-- run_id | | run
-- node_class | | machines that may be compared with each other
-- workload | | workload
-- configuration | | configuration
-- baseline | | whether that is the one which the others are compared with
-- metric | | name of the metric, see below
-- n | | counted trials that have a value
-- median | the metric's own | median over trials
-- median_low | the metric's own | lower bound of its 95 % interval (order statistics, exact if trials are independent); null with fewer than six values
-- median_high | the metric's own | upper bound of it
-- min | the metric's own | least value of a trial
-- max | the metric's own | greatest value of a trial
-- mad | the metric's own | median absolute deviation from the median, not scaled
create view cells as
with cell as (
  select
    run_id, node_class, workload, configuration, baseline, metric,
    count(value) as n,
    median(value) as median,
    min(value) as min,
    max(value) as max,
    mad(value) as mad,
    list(value order by value) filter (value is not null) as ascending
  from trial_metrics
  group by all
), ranked as (
  -- The most k with P(fewer than k of n values lie below the median) <= 2.5 %, by the binomial.
  select
    *,
    len(list_filter(range(n // 2), lambda k: list_sum(list_transform(
      range(k + 1),
      lambda i: exp(lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) - n * ln(2))
    )) <= 0.025)) as rank
  from cell
)
select
  run_id, node_class, workload, configuration, baseline, metric, n, median,
  ascending[rank] as median_low,
  ascending[n - rank + 1] as median_high,
  min, max, mad
from ranked
order by run_id, node_class, workload, baseline desc, configuration, metric;
