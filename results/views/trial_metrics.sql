-- grain: one metric of one counted trial
-- run_id | | run of the trial
-- trial_id | | trial
-- node_class | | machines that may be compared with each other
-- workload | | workload of the trial
-- configuration | | configuration of the trial
-- baseline | | whether that is the one which the others are compared with
-- block | | block of the trial
-- metric | | name of the metric, see below
-- value | the metric's own | its value; a metric of another system has no row, nor has headroom without a hard memory limit; null when the trial can't tell (too few requests, say)
create view trial_metrics as
with rest as (
  select
    m.run_id, m.trial_id,
    median(m.rss_bytes) as initial_rss,
    median(m.working_set_bytes) as initial_working_set,
    median(m.commit_bytes) as initial_commit
  from memory m
  join phases p on p.run_id = m.run_id and p.trial_id = m.trial_id and p.phase = 'idle'
  where m.counted and m.phase = 'idle'
    and m.time_ns >= p.start_ns + (p.end_ns - p.start_ns) // 2
  group by all
),
hard as (
  -- A limit that is not in force limits nothing: no share of it is unused.
  select run_id, trial_id, if(enforced, coalesce(read_back, asked), null) as limit_bytes
  from limits
  where name = 'memory_max_bytes'
),
since_start as (
  -- Where a peak can't be begun anew, the kernel's own since the start is no less than measure's.
  select m.run_id, m.trial_id, max(coalesce(m.cgroup_peak_bytes, m.job_peak_bytes)) as peak_bytes
  from memory m
  join hard using (run_id, trial_id)
  where m.counted and m.phase = 'measure'
  group by all
),
wide as (
  select
    t.run_id, t.trial_id, t.node_class, t.workload, t.configuration, t.baseline, t.block,
    t.position, t.os, h.trial_id is not null as limited,
    r.initial_rss::double as initial_rss,
    t.peak_rss_bytes::double as peak_rss,
    t.peak_cgroup_bytes::double as peak_cgroup,
    r.initial_working_set::double as initial_working_set,
    r.initial_commit::double as initial_commit,
    t.peak_working_set_bytes::double as peak_working_set,
    t.peak_commit_bytes::double as peak_commit,
    t.peak_job_bytes::double as peak_job,
    1 - coalesce(t.peak_cgroup_bytes, t.peak_job_bytes, s.peak_bytes) / h.limit_bytes as headroom,
    g.gc_cpu_share::double as gc_cpu_share,
    g.cycles::double as gc_cycles,
    g.service_cpu_ns / (t.measure_end_ns - t.measure_start_ns)::double as cpu_cores,
    a.latency_ns[7]::double as latency_p50,
    if(a.requests >= 1000, a.latency_ns[41], null)::double as latency_p99,
    if(a.requests >= 10000, a.latency_ns[61], null)::double as latency_p999,
    a.service_ns[7]::double as service_p50,
    if(a.requests >= 1000, a.service_ns[41], null)::double as service_p99,
    if(a.requests >= 10000, a.service_ns[61], null)::double as service_p999,
    coalesce(a.succeeded, 0) * 1e9 / (t.measure_end_ns - t.measure_start_ns)::double
      as throughput,
    a.failed / nullif(a.requests, 0)::double as error_share,
    t.binary_size_bytes::double as binary_size
  from trials t
  left join rest r using (run_id, trial_id)
  left join hard h using (run_id, trial_id)
  left join since_start s using (run_id, trial_id)
  left join gc_overhead g using (run_id, trial_id)
  left join answers a using (run_id, trial_id)
  where t.counted
)
select run_id, trial_id, node_class, workload, configuration, baseline, block, metric, value
from wide
unpivot include nulls (
  value for metric in (
    initial_rss, peak_rss, peak_cgroup,
    initial_working_set, initial_commit, peak_working_set, peak_commit, peak_job, headroom,
    gc_cpu_share, gc_cycles, cpu_cores, latency_p50, latency_p99, latency_p999, service_p50, service_p99, service_p999,
    throughput, error_share, binary_size
  )
)
  -- RSS is not the working set, nor a cgroup's usage a job's commit: each system has its own rows.
where (limited or metric <> 'headroom') and case os
  when 'windows' then metric not in ('initial_rss', 'peak_rss', 'peak_cgroup')
  else metric not in (
    'initial_working_set', 'initial_commit', 'peak_working_set', 'peak_commit', 'peak_job'
  )
end
order by run_id, node_class, workload, block, position, trial_id, metric;
