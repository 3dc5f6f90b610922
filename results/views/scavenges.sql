-- grain: one report of the Go runtime's scavenger, which returns memory to the system
-- run_id | | run of the trial
-- trial_id | | trial
-- configuration | | configuration of the trial
-- workload | | workload of the trial
-- block | | block of the trial
-- valid | | whether the trial's numbers may be used
-- phase | | phase of the trial
-- time_ns | ns since epoch, UTC | when the report was read
-- forced | | whether debug.FreeOSMemory asked for it
-- released_background_bytes | bytes | returned by the background scavenger since the last report
-- released_eager_bytes | bytes | returned by allocating goroutines since the last report, to keep within GOMEMLIMIT
-- released_total_bytes | bytes | both, since the program started
-- released_now_bytes | bytes | memory that is returned to the system at this time: what was taken again is not in it
-- heap_utilisation | fraction | runtime's own figure, whole percents: in-use share of the heap that is not returned
create view scavenges as
select
  run_id, trial_id, configuration, workload, block, valid, phase, time_ns, forced,
  released_background_bytes, released_eager_bytes,
  sum(coalesce(released_background_bytes, 0) + coalesce(released_eager_bytes, 0)) over (
    partition by run_id, trial_id order by time_ns rows unbounded preceding
  )::bigint as released_total_bytes,
  released_now_bytes, heap_utilisation
from gc
where kind = 'scavenge'
order by run_id, trial_id, time_ns;
