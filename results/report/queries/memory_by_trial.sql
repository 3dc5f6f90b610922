-- grain: one trial, invalid ones too
-- units: bytes; initial: median of the second half of idle; peak_*: the kernel's own peaks in measure
--        (on Windows see trials.peak_working_set_from); sampled_*: greatest sample of any phase,
--        whole process tree
with initial as (
  select run_id, trial_id,
    max(value) filter (metric = 'initial_rss')::bigint as initial_rss_bytes,
    max(value) filter (metric = 'initial_working_set')::bigint as initial_working_set_bytes,
    max(value) filter (metric = 'initial_commit')::bigint as initial_commit_bytes
  from trial_metrics
  where metric like 'initial%'
  group by all
),
sampled as (
  select run_id, trial_id,
    max(rss_bytes) as sampled_peak_bytes, max(working_set_bytes) as sampled_working_set_bytes,
    max(commit_bytes) as sampled_commit_bytes
  from memory
  group by all
)
select
  t.node_class, t.os, t.workload, t.trial_id, t.configuration, t.counted,
  i.initial_rss_bytes, t.peak_rss_bytes, t.peak_cgroup_bytes, s.sampled_peak_bytes,
  i.initial_working_set_bytes, t.peak_working_set_bytes, s.sampled_working_set_bytes,
  i.initial_commit_bytes, t.peak_commit_bytes, s.sampled_commit_bytes, t.peak_job_bytes,
  t.exit_text
from trials t
left join initial i using (run_id, trial_id)
left join sampled s using (run_id, trial_id)
where t.run_id = $run
order by t.node_class, t.workload, t.block, t.position, t.attempt, t.trial_id;
