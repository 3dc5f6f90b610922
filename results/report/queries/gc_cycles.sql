-- grain: garbage collections of one trial in one of $buckets slices of the chart's time
-- units: second: s since phase measure began, of the first cycle in the slice; cycles: how many;
--        longest_stop_ns: ns, longest single stop; heap_goal_bytes: bytes, greatest
with placed as (
  select
    t.node_class, t.workload, t.configuration, t.trial_id, t.block, t.position, t.attempt,
    (g.time_ns - t.measure_start_ns) / 1e9 as second,
    greatest(g.stw_sweep_ns, g.stw_mark_ns) as stop_ns,
    g.heap_goal_bytes
  from gc g
  join trials t on t.run_id = g.run_id and t.trial_id = g.trial_id
  where g.run_id = $run and g.kind = 'cycle' and t.measure_start_ns is not null
),
sliced as (
  select
    *,
    floor(
      (second - min(second) over panel)
      / greatest(max(second) over panel - min(second) over panel, 1e-9) * $buckets
    ) as slice
  from placed
  window panel as (partition by node_class, workload)
)
select
  node_class, workload, configuration, trial_id,
  'b' || block || '-' || position || if(attempt > 1, '~' || attempt, '') as label,
  round(min(second), 3) as second, count(*) as cycles,
  max(stop_ns) as longest_stop_ns, max(heap_goal_bytes) as heap_goal_bytes
from sliced
group by node_class, workload, configuration, trial_id, block, position, attempt, slice
order by node_class, workload, block, position, attempt, trial_id, slice;
