-- grain: one phase of one workload on one node class: medians over trials that measured
-- units: begin_s, end_s: s since phase measure began
with spans as (
  select
    t.node_class, t.workload, t.trial_id, p.phase,
    min(p.start_ns - t.measure_start_ns) / 1e9 as begin_s,
    max(p.end_ns - t.measure_start_ns) / 1e9 as end_s
  from phases p
  join trials t using (run_id, trial_id)
  where p.run_id = $run and t.measure_start_ns is not null
    and p.phase in ('startup', 'idle', 'warmup', 'measure', 'cooldown')
  group by all
)
select node_class, workload, phase,
  round(median(begin_s), 3) as begin_s, round(median(end_s), 3) as end_s
from spans
group by all
order by node_class, workload, begin_s, phase;
