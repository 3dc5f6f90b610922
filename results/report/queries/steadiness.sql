-- grain: one series of one configuration under one workload: what its trials did over measure
-- units: steady, drifts, steps, untold: how many trials; slope_share: fraction of the level over the
--        whole of measure, median over trials; too short a measure tells nothing
select
  t.configuration, s.workload, t.node_class, s.series,
  count(*) filter (s.verdict = 'steady') as steady,
  count(*) filter (s.verdict = 'drifts') as drifts,
  count(*) filter (s.verdict = 'steps') as steps,
  count(*) filter (s.verdict not in ('steady', 'drifts', 'steps')) as untold,
  median(s.slope_per_minute * s.measure_s / 60 / nullif(s.level, 0)) as slope_share
from trends s
join trials t using (run_id, trial_id)
where s.run_id = $run and t.counted
group by all
order by all;
