-- grain: one stack of calls of one configuration in one kind of profile
-- units: value: in `unit`, mean over the profiles of its counted trials (means add up along a stack,
--        medians do not); profiles: how many had anything to tell
with taken as (
  select node_class, workload, configuration, kind, count(distinct (trial_id, time_ns)) as profiles
  from profile_stacks
  where run_id = $run and counted
  group by all
)
select
  s.node_class, s.workload, s.configuration, s.kind, s.quantity, s.unit, s.calls,
  sum(s.value) / any_value(t.profiles) as value, any_value(t.profiles) as profiles
from profile_stacks s
join taken t using (node_class, workload, configuration, kind)
where s.run_id = $run and s.counted
  and s.quantity in ('inuse_space', 'alloc_space', 'goroutine', 'delay')
  and (s.kind = 'heap') = (s.quantity = 'inuse_space')
group by all
order by all;
