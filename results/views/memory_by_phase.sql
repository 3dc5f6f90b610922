-- grain: one phase of one trial
-- run_id | | run of the trial
-- trial_id | | trial
-- configuration | | configuration of the trial
-- workload | | workload of the trial
-- block | | block of the trial
-- valid | | whether the trial's numbers may be used
-- phase | | phase of the trial
-- samples | | samples of memory in the phase
-- rss_median_bytes | bytes | median of resident memory
-- rss_min_bytes | bytes | least sample
-- rss_max_bytes | bytes | greatest sample; the kernel's own peak is never less
-- peak_rss_bytes | bytes | kernel's peak of resident memory since the phase began (VmHWM)
-- cgroup_max_bytes | bytes | greatest sample of what a container limit counts
create view memory_by_phase as
select
  run_id, trial_id, configuration, workload, block, valid, phase,
  count(*) as samples,
  median(rss_bytes) as rss_median_bytes,
  min(rss_bytes) as rss_min_bytes,
  max(rss_bytes) as rss_max_bytes,
  max(peak_rss_bytes) as peak_rss_bytes,
  max(cgroup_usage_bytes) as cgroup_max_bytes
from memory
group by all
order by run_id, trial_id, min(time_ns);
