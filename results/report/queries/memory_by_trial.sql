-- grain: one trial, invalid ones too
-- units: bytes; initial: median of the second half of idle; peak_rss, peak_cgroup: the kernel's own
--        peaks in measure; sampled_peak: greatest sample of any phase, whole process tree
with initial as (
  select run_id, trial_id, value::bigint as initial_rss_bytes
  from trial_metrics
  where metric = 'initial_rss'
),
sampled as (
  select run_id, trial_id, max(rss_bytes) as sampled_peak_bytes
  from memory
  group by all
)
select
  t.node_class, t.workload, t.trial_id, t.configuration, t.counted,
  i.initial_rss_bytes, t.peak_rss_bytes, t.peak_cgroup_bytes, s.sampled_peak_bytes, t.exit_text
from trials t
left join initial i using (run_id, trial_id)
left join sampled s using (run_id, trial_id)
where t.run_id = $run
order by t.node_class, t.workload, t.block, t.position, t.attempt, t.trial_id;
