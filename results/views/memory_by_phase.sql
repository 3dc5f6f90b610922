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
-- working_set_median_bytes | bytes | Windows: median of the working set
-- working_set_min_bytes | bytes | Windows: least sample
-- working_set_max_bytes | bytes | Windows: greatest sample
-- private_working_set_max_bytes | bytes | Windows: greatest sample of its private part; null where Windows does not tell
-- peak_working_set_bytes | bytes | Windows: kernel's mark of the main process since start, at the end of the phase
-- commit_median_bytes | bytes | Windows: median of private commit
-- commit_max_bytes | bytes | Windows: greatest sample of private commit
-- peak_commit_bytes | bytes | Windows: kernel's mark of the main process since start, at the end of the phase
-- job_peak_bytes | bytes | Windows: kernel's mark of the job object since start, at the end of the phase
-- page_faults | | Windows: page faults of either kind between the first and the last sample
-- pagefile_used_max_bytes | bytes | Windows: greatest use of the system's page files
-- system_commit_max_bytes | bytes | Windows: greatest commit of the whole system
-- system_commit_limit_bytes | bytes | Windows: least commit limit of the system
create view memory_by_phase as
select
  run_id, trial_id, configuration, workload, block, valid, phase,
  count(*) as samples,
  median(rss_bytes) as rss_median_bytes,
  min(rss_bytes) as rss_min_bytes,
  max(rss_bytes) as rss_max_bytes,
  max(peak_rss_bytes) as peak_rss_bytes,
  max(cgroup_usage_bytes) as cgroup_max_bytes,
  median(working_set_bytes) as working_set_median_bytes,
  min(working_set_bytes) as working_set_min_bytes,
  max(working_set_bytes) as working_set_max_bytes,
  max(private_working_set_bytes) as private_working_set_max_bytes,
  max(peak_working_set_bytes) as peak_working_set_bytes,
  median(commit_bytes) as commit_median_bytes,
  max(commit_bytes) as commit_max_bytes,
  max(peak_commit_bytes) as peak_commit_bytes,
  max(job_peak_bytes) as job_peak_bytes,
  max(page_faults) - min(page_faults) as page_faults,
  max(pagefile_used_bytes) as pagefile_used_max_bytes,
  max(system_commit_bytes) as system_commit_max_bytes,
  min(system_commit_limit_bytes) as system_commit_limit_bytes
from memory
group by all
order by run_id, trial_id, min(time_ns);
