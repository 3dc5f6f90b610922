-- grain: one sample of one trial. The time of the chart is cut into $buckets slices; of each trial,
--        the least and the greatest sample in a slice are kept: no peak is lost
-- units: second: s since phase measure began (a trial that never measured ends at 0);
--        resident_bytes: bytes of resident memory, the whole process tree: RSS on Linux, the
--        working set on Windows; a node class has one of them
with placed as (
  select
    t.node_class, t.workload, t.configuration, t.trial_id, t.block, t.position, t.attempt,
    t.counted, m.phase::varchar as phase,
    coalesce(m.rss_bytes, m.working_set_bytes) as resident_bytes,
    (m.time_ns - coalesce(t.measure_start_ns, max(m.time_ns) over (partition by m.trial_id)))
      / 1e9 as second
  from memory m
  join trials t on t.run_id = m.run_id and t.trial_id = m.trial_id
  where m.run_id = $run and coalesce(m.rss_bytes, m.working_set_bytes) is not null
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
select node_class, workload, configuration, trial_id, counted, phase, round(second, 3) as second,
  resident_bytes
from sliced
qualify
  row_number() over (partition by trial_id, slice order by resident_bytes, second) = 1
  or row_number() over (partition by trial_id, slice order by resident_bytes desc, second) = 1
order by node_class, workload, block, position, attempt, trial_id, sliced.second;
