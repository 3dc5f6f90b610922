-- grain: one sealed trial, every attempt
-- units: *_share: fraction; lag_p99_ns: ns, the load generator's own delay; the others are counts
select
  trial_id, configuration, workload, node_id, node_class, valid, counted, sent, measured, failed,
  lag_p99_ns, generator_cpu_share, exit_text
from trials
where run_id = $run
order by block, workload, position, attempt, trial_id;
