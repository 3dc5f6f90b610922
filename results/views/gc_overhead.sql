-- grain: garbage collection in phase measure of one trial
-- run_id | | run of the trial
-- trial_id | | trial
-- configuration | | configuration of the trial
-- workload | | workload of the trial
-- block | | block of the trial
-- valid | | whether the trial's numbers may be used
-- cycles | | collections; null when the runtime was not asked to report them
-- gc_cpu_ns | ns | CPU time of collections: stops, assists, dedicated workers; not idle workers; one without a readable report counts as the average
-- idle_cpu_ns | ns | CPU time of mark workers on otherwise idle processors
-- service_cpu_ns | ns | CPU time of the service in the phase
-- gc_cpu_share | fraction | gc_cpu_ns per service_cpu_ns
-- stopped_ns | ns | wall time in which the collector stopped the program, sum
-- longest_stop_ns | ns | longest single stop
-- scavenged_bytes | bytes | memory that the scavenger returned to the system
create view gc_overhead as
with collections as (
  select
    run_id, trial_id,
    -- By their numbers: a report that the service's own output tore apart is no row.
    max(cycle) - min(cycle) + 1 as cycles,
    avg(cpu_stw_sweep_ns + cpu_assist_ns + cpu_background_ns + cpu_stw_mark_ns) as cycle_cpu_ns,
    avg(cpu_idle_ns) as cycle_idle_ns,
    avg(stw_sweep_ns + stw_mark_ns) as cycle_stopped_ns,
    max(greatest(stw_sweep_ns, stw_mark_ns)) filter (kind = 'cycle') as longest_stop_ns,
    sum(coalesce(released_background_bytes, 0) + coalesce(released_eager_bytes, 0))
      filter (kind = 'scavenge')::bigint as scavenged_bytes
  from gc
  where phase = 'measure'
  group by all
),
processor as (
  select run_id, trial_id, cpu_ns as service_cpu_ns from phases where phase = 'measure'
)
select
  t.run_id, t.trial_id, t.configuration, t.workload, t.block, t.valid,
  if(t.gc_traced, coalesce(c.cycles, 0), null) as cycles,
  if(t.gc_traced, coalesce(c.cycles * c.cycle_cpu_ns, 0), null)::bigint as gc_cpu_ns,
  if(t.gc_traced, coalesce(c.cycles * c.cycle_idle_ns, 0), null)::bigint as idle_cpu_ns,
  p.service_cpu_ns,
  if(t.gc_traced, coalesce(c.cycles * c.cycle_cpu_ns, 0), null) / nullif(p.service_cpu_ns, 0) as gc_cpu_share,
  if(t.gc_traced, coalesce(c.cycles * c.cycle_stopped_ns, 0), null)::bigint as stopped_ns,
  c.longest_stop_ns,
  if(t.gc_traced, coalesce(c.scavenged_bytes, 0), null) as scavenged_bytes
from trials t
left join collections c using (run_id, trial_id)
left join processor p using (run_id, trial_id)
where t.measure_start_ns is not null
order by t.run_id, t.block, t.workload, t.position, t.attempt, t.trial_id;
