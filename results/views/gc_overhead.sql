-- grain: garbage collection in phase measure of one trial
-- run_id | | run of the trial
-- trial_id | | trial
-- configuration | | configuration of the trial
-- workload | | workload of the trial
-- block | | block of the trial
-- valid | | whether the trial's numbers may be used
-- cycles | | collections; null when the runtime was not asked to report them
-- gc_cpu_ns | ns | CPU time of collections: stops, assists, dedicated workers; not idle workers; one without a readable report counts as the average
-- assist_cpu_ns | ns | its part that goroutines spent helping while they allocated, before they could go on
-- idle_cpu_ns | ns | CPU time of mark workers on otherwise idle processors
-- service_cpu_ns | ns | CPU time of the service in the phase
-- gc_cpu_share | fraction | gc_cpu_ns per service_cpu_ns; null when that is above 1: the runtime counts the wall time of its workers, also when others had their cores
-- stopped_ns | ns | wall time in which the collector stopped the program, sum
-- longest_stop_ns | ns | longest single stop
-- heap_live_median_bytes | bytes | median over the cycles of what was marked live (whole MiB)
-- heap_goal_median_bytes | bytes | median over the cycles of the heap at which each should end (whole MiB)
-- heap_goal_max_bytes | bytes | the greatest of those goals
-- scavenged_bytes | bytes | memory that the scavenger returned to the system
-- released_now_max_bytes | bytes | the most that was returned to the system at any report
-- runtime_gc_cpu_share | fraction | by runtime/metrics: CPU time of GC without idle workers, per CPU time at work, between the first and the last reading in measure; the runtime counts up to the end of its last collection; null when none ended meanwhile or no endpoint tells
-- limiter_cycle | | by runtime/metrics: the cycle in which the GC CPU limiter was enabled last, as of the end of measure; 0 is never
create view gc_overhead as
with collections as (
  select
    run_id, trial_id,
    -- By their numbers: a report that the service's own output tore apart is no row.
    max(cycle) - min(cycle) + 1 as cycles,
    avg(cpu_stw_sweep_ns + cpu_assist_ns + cpu_background_ns + cpu_stw_mark_ns) as cycle_cpu_ns,
    avg(cpu_assist_ns) as cycle_assist_ns,
    avg(cpu_idle_ns) as cycle_idle_ns,
    avg(stw_sweep_ns + stw_mark_ns) as cycle_stopped_ns,
    max(greatest(stw_sweep_ns, stw_mark_ns)) filter (kind = 'cycle') as longest_stop_ns,
    median(heap_live_bytes) as heap_live_median_bytes,
    median(heap_goal_bytes) as heap_goal_median_bytes,
    max(heap_goal_bytes) as heap_goal_max_bytes,
    max(released_now_bytes) as released_now_max_bytes,
    sum(coalesce(released_background_bytes, 0) + coalesce(released_eager_bytes, 0))
      filter (kind = 'scavenge')::bigint as scavenged_bytes
  from gc
  where phase = 'measure'
  group by all
),
readings as (
  select run_id, trial_id, metric, max(value) - min(value) as grown, max_by(value, time_ns) as last
  from runtime
  where phase = 'measure' and (metric like 'go_cpu_classes_%' or metric like 'go_gc_limiter_%')
  group by all
),
told as (
  select
    run_id, trial_id,
    any_value(grown) filter (metric = 'go_cpu_classes_gc_total_cpu_seconds_total') as gc_s,
    any_value(grown) filter (metric = 'go_cpu_classes_gc_mark_idle_cpu_seconds_total') as gc_idle_s,
    any_value(grown) filter (metric = 'go_cpu_classes_idle_cpu_seconds_total') as idle_s,
    any_value(grown) filter (metric = 'go_cpu_classes_total_cpu_seconds_total') as all_s,
    any_value(last) filter (metric = 'go_gc_limiter_last_enabled_gc_cycle') as limiter_cycle
  from readings
  group by all
),
processor as (
  select run_id, trial_id, cpu_ns as service_cpu_ns from phases where phase = 'measure'
)
select
  t.run_id, t.trial_id, t.configuration, t.workload, t.block, t.valid,
  if(t.gc_traced, coalesce(c.cycles, 0), null) as cycles,
  if(t.gc_traced, coalesce(c.cycles * c.cycle_cpu_ns, 0), null)::bigint as gc_cpu_ns,
  if(t.gc_traced, coalesce(c.cycles * c.cycle_assist_ns, 0), null)::bigint as assist_cpu_ns,
  if(t.gc_traced, coalesce(c.cycles * c.cycle_idle_ns, 0), null)::bigint as idle_cpu_ns,
  p.service_cpu_ns,
  if(
    t.gc_traced and coalesce(c.cycles * c.cycle_cpu_ns, 0) <= p.service_cpu_ns,
    coalesce(c.cycles * c.cycle_cpu_ns, 0) / nullif(p.service_cpu_ns, 0),
    null
  ) as gc_cpu_share,
  if(t.gc_traced, coalesce(c.cycles * c.cycle_stopped_ns, 0), null)::bigint as stopped_ns,
  c.longest_stop_ns,
  c.heap_live_median_bytes::bigint as heap_live_median_bytes,
  c.heap_goal_median_bytes::bigint as heap_goal_median_bytes,
  c.heap_goal_max_bytes,
  if(t.gc_traced, coalesce(c.scavenged_bytes, 0), null) as scavenged_bytes,
  c.released_now_max_bytes,
  (r.gc_s - r.gc_idle_s) / nullif(r.all_s - r.idle_s - r.gc_idle_s, 0) as runtime_gc_cpu_share,
  r.limiter_cycle::bigint as limiter_cycle
from trials t
left join collections c using (run_id, trial_id)
left join processor p using (run_id, trial_id)
left join told r using (run_id, trial_id)
where t.measure_start_ns is not null
order by t.run_id, t.block, t.workload, t.position, t.attempt, t.trial_id;
