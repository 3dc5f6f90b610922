-- grain: one GC cycle of one trial, with the requests that were in flight meanwhile
-- run_id | | run of the trial
-- trial_id | | trial
-- configuration | | configuration of the trial
-- workload | | workload of the trial
-- block | | block of the trial
-- valid | | whether the trial's numbers may be used
-- phase | | phase of the trial in which the cycle was reported
-- cycle | | number of the cycle since the program started
-- forced | | whether runtime.GC or a debugger asked for it
-- start_ns | ns since epoch, UTC | when the cycle began, by the clock of the service's node: not after this, and at most error_ns before
-- end_ns | ns since epoch, UTC | when it ended: start_ns and the wall times that the runtime reports
-- error_ns | ns | how much earlier it may have begun: what is left open by the report's whole milliseconds, by when it was read and by rounded wall times, and the clocks' own bound where other nodes made the load; null where that is not known
-- stopped_ns | ns | wall time of both stops
-- assist_cpu_ns | ns | CPU time that goroutines spent helping while they allocated
-- requests | | requests in flight at any moment of the cycle, of all phases
-- in_stop | | those in flight in one of its stops
-- in_mark | | those in flight in its concurrent mark
-- latency_p50_ns | ns | median of latency of the requests in flight; long ones meet more cycles by chance alone, so a difference to the others is a hint, not a cost
-- latency_p99_ns | ns | 99th percentile; of less than 100 requests it is close to the maximum
-- stop_latency_p50_ns | ns | median of those in flight in a stop
-- stop_latency_p99_ns | ns | 99th percentile of those
-- other_latency_p50_ns | ns | median of the trial's requests in the same phase that met no reported cycle
-- other_latency_p99_ns | ns | 99th percentile of those
create view requests_during_gc as
with reported as (
  select
    run_id, trial_id, configuration, workload, block, valid, phase, cycle, forced,
    time_ns, since_start_ns, stw_sweep_ns, stw_mark_ns, cpu_assist_ns,
    stw_sweep_ns + concurrent_ns + stw_mark_ns as wall_ns,
    -- The runtime writes two digits below 10 ms and whole milliseconds from there on.
    if(stw_sweep_ns < 10000000, stw_sweep_ns // 10, 1000000)
      + if(concurrent_ns < 10000000, concurrent_ns // 10, 1000000)
      + if(stw_mark_ns < 10000000, stw_mark_ns // 10, 1000000) as rounded_ns
  from gc
  where kind = 'cycle'
),
  -- When the program began, by our clock: no report is read before its cycle has ended, so the report
  -- that was read soonest tells it best.
based as (
  select
    *,
    min(time_ns - wall_ns - since_start_ns) over (partition by run_id, trial_id) as program_ns,
    sum(wall_ns) over (partition by run_id, trial_id order by cycle)::bigint - wall_ns as before_ns
  from reported
),
  -- Not after the moment at which it was read, nor after the whole millisecond that it names.
bounded as (
  select *, least(time_ns - wall_ns, program_ns + since_start_ns + 1000000) as latest_ns
  from based
),
  -- A cycle ends before the next one begins: lines that were read together are set apart.
cycles as (
  select
    *,
    row_number() over (partition by run_id, trial_id order by cycle) as n,
    before_ns + min(latest_ns - before_ns) over (
      partition by run_id, trial_id order by cycle
      rows between current row and unbounded following
    ) as start_ns,
    start_ns + wall_ns as end_ns
  from bounded
),
  -- What a load node sent is set on the clock of the service's node.
sent as (
  select
    r.run_id::varchar as run_id, r.trial_id::varchar as trial_id, r.phase, r.latency_ns,
    r.start_ns + coalesce(t.measure_start_ns - r.measure_start_ns, 0) as from_ns,
    from_ns + r.service_ns as until_ns
  from requests r
  join trials t using (run_id, trial_id)
  where t.gc_traced
),
met as (
  select s.*, f.n as first_n, l.n as last_n, coalesce(l.n >= f.n, false) as met_any
  from sent s
  asof left join cycles f
    on s.run_id = f.run_id and s.trial_id = f.trial_id and s.from_ns <= f.end_ns
  asof left join cycles l
    on s.run_id = l.run_id and s.trial_id = l.trial_id and s.until_ns >= l.start_ns
),
pairs as (
  select run_id, trial_id, latency_ns, from_ns, until_ns, unnest(range(first_n, last_n + 1)) as n
  from met
  where met_any
),
placed as (
  select
    p.run_id, p.trial_id, p.n, p.latency_ns,
    p.from_ns <= c.start_ns + c.stw_sweep_ns or p.until_ns >= c.end_ns - c.stw_mark_ns as in_stop,
    p.until_ns >= c.start_ns + c.stw_sweep_ns and p.from_ns <= c.end_ns - c.stw_mark_ns as in_mark
  from pairs p
  join cycles c using (run_id, trial_id, n)
),
inside as (
  select
    run_id, trial_id, n,
    count(*) as requests,
    count(*) filter (in_stop) as in_stop,
    count(*) filter (in_mark) as in_mark,
    quantile_cont(latency_ns, [0.5, 0.99]) as latency,
    quantile_cont(latency_ns, [0.5, 0.99]) filter (in_stop) as stop_latency
  from placed
  group by all
),
outside as (
  select run_id, trial_id, phase, quantile_cont(latency_ns, [0.5, 0.99]) as latency
  from met
  where not met_any
  group by all
)
select
  c.run_id, c.trial_id, c.configuration, c.workload, c.block, c.valid, c.phase, c.cycle, c.forced,
  c.start_ns, c.end_ns,
  greatest(c.start_ns - c.program_ns - c.since_start_ns, 0) + c.rounded_ns + t.load_clock_error_ns
    as error_ns,
  c.stw_sweep_ns + c.stw_mark_ns as stopped_ns,
  c.cpu_assist_ns as assist_cpu_ns,
  coalesce(i.requests, 0) as requests,
  coalesce(i.in_stop, 0) as in_stop,
  coalesce(i.in_mark, 0) as in_mark,
  i.latency[1] as latency_p50_ns,
  i.latency[2] as latency_p99_ns,
  i.stop_latency[1] as stop_latency_p50_ns,
  i.stop_latency[2] as stop_latency_p99_ns,
  o.latency[1] as other_latency_p50_ns,
  o.latency[2] as other_latency_p99_ns
from cycles c
join trials t using (run_id, trial_id)
left join inside i using (run_id, trial_id, n)
left join outside o on o.run_id = c.run_id and o.trial_id = c.trial_id and o.phase = c.phase
order by c.run_id, c.trial_id, c.cycle;
