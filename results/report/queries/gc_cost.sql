-- grain: one counted trial whose collections were reported
-- units: gc_cpu_share: CPU time of collections per CPU time of the service in measure; gc_cpu_ns,
--        longest_stop_ns, stopped_ns: ns; scavenged_bytes: bytes returned to the system
select
  t.node_class, g.workload, g.configuration, g.trial_id, g.block, g.cycles, g.gc_cpu_share,
  g.gc_cpu_ns, g.stopped_ns, g.longest_stop_ns, g.scavenged_bytes
from gc_overhead g
join trials t using (run_id, trial_id)
where g.run_id = $run and t.counted and g.cycles is not null
order by t.node_class, g.workload, g.configuration, g.block, g.trial_id;
