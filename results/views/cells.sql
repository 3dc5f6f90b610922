-- grain: one metric of one configuration under one workload on one node class, in a run
-- run_id | | run
-- node_class | | machines that may be compared with each other
-- workload | | workload
-- configuration | | configuration
-- baseline | | whether that is the one which the others are compared with
-- metric | | name of the metric, see below
-- n | | counted trials that have a value
-- median | the metric's own | median over trials
-- min | the metric's own | least value of a trial
-- max | the metric's own | greatest value of a trial
-- mad | the metric's own | median absolute deviation from the median, not scaled
create view cells as
select
  run_id, node_class, workload, configuration, baseline, metric,
  count(value) as n,
  median(value) as median,
  min(value) as min,
  max(value) as max,
  mad(value) as mad
from trial_metrics
group by all
order by run_id, node_class, workload, baseline desc, configuration, metric;
