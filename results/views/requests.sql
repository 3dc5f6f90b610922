-- One request that the load generator sent, whatever the version of its archive: since version 3 of
-- the format the lag is stored, and the intended start and the latency from it are computed.
create view requests as
select
  run_id, trial_id, configuration, baseline, workload, block, node_class, valid, counted,
  measure_start_ns, measure_end_ns, generator, process,
  intended_ns, start_ns, lag_ns, phase, latency_ns, service_ns,
  method, name, status, response_bytes, error
from (
  select
    *,
    start_ns - lag_ns as intended_ns,
    service_ns + coalesce(lag_ns, 0) as latency_ns
  from raw_requests
  union all by name
  select *, start_ns - intended_ns as lag_ns
  from raw_requests_v2
);
