-- grain: one function in one quantity of the profiles of one configuration, beside the baseline's; in a run
-- run_id | | run
-- workload | | workload
-- node_class | | machines that were compared with each other
-- baseline | | name of the baseline
-- configuration | | configuration that is compared with it
-- kind | | heap, goroutine, allocs, mutex or block
-- quantity | | what is counted: inuse_space, alloc_objects, goroutine, delay …
-- unit | | bytes, count or nanoseconds
-- function | | name of the function with its package
-- profiles | | profiles of the configuration's counted trials
-- baseline_profiles | | profiles of the baseline's counted trials
-- flat | the row's own | median over the configuration's profiles; one without the function counts as 0
-- baseline_flat | the row's own | the same of the baseline
-- flat_change | the row's own | flat minus baseline_flat: told, not tested
-- cumulative | the row's own | as flat, with all that the function called
-- baseline_cumulative | the row's own | the same of the baseline
-- cumulative_change | the row's own | cumulative minus baseline_cumulative
create view profile_diff as
with taken as (
  select distinct
    t.run_id, t.trial_id, t.workload, t.node_class, t.configuration, t.baseline,
    p.kind, p.quantity, p.unit
  from raw_profiles p
  join trials t using (run_id, trial_id)
  where t.counted
),
  -- By name alone: toolchains of two configurations have their own source files.
costs as (
  select
    run_id, trial_id, kind, quantity, function,
    sum(flat) as flat, sum(cumulative) as cumulative
  from raw_profiles
  group by all
),
known as (
  select distinct k.run_id, k.workload, k.node_class, k.kind, k.quantity, c.function
  from taken k
  join costs c using (run_id, trial_id, kind, quantity)
),
filled as (
  select
    k.run_id, k.workload, k.node_class, k.configuration, k.baseline, k.kind, k.quantity, k.unit,
    n.function, coalesce(c.flat, 0) as flat, coalesce(c.cumulative, 0) as cumulative
  from taken k
  join known n using (run_id, workload, node_class, kind, quantity)
  left join costs c using (run_id, trial_id, kind, quantity, function)
),
summed as (
  select
    run_id, workload, node_class, configuration, baseline, kind, quantity, unit, function,
    count(*) as profiles, median(flat) as flat, median(cumulative) as cumulative
  from filled
  group by all
)
select
  c.run_id, c.workload, c.node_class, b.configuration as baseline, c.configuration,
  c.kind, c.quantity, c.unit, c.function, c.profiles, b.profiles as baseline_profiles,
  c.flat, b.flat as baseline_flat, c.flat - b.flat as flat_change,
  c.cumulative, b.cumulative as baseline_cumulative,
  c.cumulative - b.cumulative as cumulative_change
from summed c
join summed b using (run_id, workload, node_class, kind, quantity, unit, function)
where b.baseline and not c.baseline
order by
  c.run_id, c.workload, c.node_class, c.configuration, c.kind, c.quantity,
  abs(c.flat - b.flat) desc, c.function;
