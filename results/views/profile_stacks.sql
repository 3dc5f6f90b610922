-- grain: one stack of calls in one quantity of a profile that was taken of a trial's service
-- run_id | | run of the trial
-- trial_id | | trial
-- node_class | | machines that may be compared with each other
-- workload | | workload of the trial
-- configuration | | configuration of the trial
-- block | | block of the trial
-- counted | | whether the trial counts
-- time_ns | ns since epoch, UTC | when the profile was asked for
-- phase | | phase of the trial
-- reason | | end: measure had ended; memory_over: memory passed what the matrix says
-- kind | | heap, goroutine, allocs, mutex or block
-- quantity | | what is counted: inuse_space, alloc_objects, goroutine, delay …
-- unit | | bytes, count or nanoseconds
-- calls | | names of the functions, outermost first; inlined ones too
-- value | the row's own | what the innermost function holds, made or waited for on this way
create view profile_stacks as
select
  t.run_id, t.trial_id, t.node_class, t.workload, t.configuration, t.block, t.counted,
  s.time_ns, s.phase, s.reason, s.kind, s.quantity, s.unit, s.calls, s.value
from raw_stacks s
join trials t using (run_id, trial_id)
order by t.run_id, t.block, t.workload, t.position, t.trial_id, s.kind, s.time_ns, s.quantity,
  s.calls;
