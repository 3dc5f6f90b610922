-- grain: one function in one quantity of a profile that was taken of a trial's service
-- run_id | | run of the trial
-- trial_id | | trial
-- configuration | | configuration of the trial
-- workload | | workload of the trial
-- block | | block of the trial
-- valid | | whether the trial's numbers may be used
-- time_ns | ns since epoch, UTC | when the profile was asked for
-- phase | | phase of the trial
-- reason | | end: measure had ended; memory_over: memory passed what the matrix says
-- kind | | heap, goroutine, allocs, mutex or block
-- quantity | | what is counted: inuse_space, alloc_objects, goroutine, delay …
-- unit | | bytes, count or nanoseconds
-- rank | | place in the profile by flat, from 1
-- function | | name of the function with its package
-- file | | source file, as the program was built
-- flat | the row's own | what the function itself holds, made or waited for; Go estimates it from samples (of heap and allocs one in 512 KiB)
-- cumulative | the row's own | the same with all that it called
-- flat_share | fraction | of the whole profile
-- cumulative_share | fraction | of the whole profile
create view profiles as
select
  t.run_id, t.trial_id, t.configuration, t.workload, t.block, t.valid,
  p.time_ns, p.phase, p.reason, p.kind, p.quantity, p.unit,
  row_number() over (
    partition by t.run_id, t.trial_id, p.kind, p.time_ns, p.quantity
    order by p.flat desc, p.cumulative desc, p.function, p.file
  ) as rank,
  p.function, p.file, p.flat, p.cumulative,
  p.flat / nullif(p.total, 0)::double as flat_share,
  p.cumulative / nullif(p.total, 0)::double as cumulative_share
from raw_profiles p
join trials t using (run_id, trial_id)
order by t.run_id, t.block, t.workload, t.position, t.trial_id, p.kind, p.time_ns, p.quantity, rank;
