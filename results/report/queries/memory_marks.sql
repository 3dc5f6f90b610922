-- grain: one death of a service, or the first OOM kill inside a trial that went on
-- units: second: s since phase measure began (a trial that never measured ends at 0);
--        resident_bytes: bytes of the last sample: RSS on Linux, the working set on Windows
with placed as (
  select
    t.node_class, t.workload, t.configuration, t.trial_id, t.exit_cause, t.exit_text,
    coalesce(m.rss_bytes, m.working_set_bytes) as resident_bytes,
    m.cgroup_oom_kills,
    (m.time_ns - coalesce(t.measure_start_ns, max(m.time_ns) over (partition by m.trial_id)))
      / 1e9 as second
  from memory m
  join trials t on t.run_id = m.run_id and t.trial_id = m.trial_id
  where m.run_id = $run and coalesce(m.rss_bytes, m.working_set_bytes) is not null
)
select node_class, workload, configuration, trial_id, exit_cause as cause, exit_text as text,
  round(max(second), 3) as second, arg_max(resident_bytes, second) as resident_bytes
from placed
where exit_cause <> 'stopped'
group by all
union all
select node_class, workload, configuration, trial_id, 'oom_kill' as cause,
  'a process of the service was killed for lack of memory' as text,
  round(min(second), 3) as second, arg_min(resident_bytes, second) as resident_bytes
from placed
where exit_cause = 'stopped' and cgroup_oom_kills > 0
group by all
order by all;
