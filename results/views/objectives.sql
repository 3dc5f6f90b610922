-- grain: one objective of a run's matrix in one cell that it is about: what must hold, and whether it does
-- run_id | | run
-- objective | | as the matrix or its policy file says it
-- kind | | limit (on the metric itself), change (against the baseline), no_leak or capacity
-- severity | | block (a sign-off fails) or warn
-- node_class | | machines that may be compared with each other; null where no trial of the run has such a cell
-- os | | their system: linux or windows
-- workload | | workload
-- configuration | | configuration
-- metric | | name of the metric, see below; null for no_leak and capacity
-- decision | | PASS (the whole interval keeps it), FAIL (the whole interval breaks it) or CAN'T TELL; waivers are not looked at
-- reason | | the figures, or what there is none for
-- estimate | the metric's own, a fraction, bytes or requests per second | limit: median over trials; change: fraction of the baseline by which it is worse; no_leak: growth; capacity: the rate
-- low | as estimate | lower confidence bound; null when it is infinite
-- high | as estimate | upper confidence bound; null when it is infinite
-- trials | | trials, or pairs of trials, that it was decided on
-- trials_needed | | about how many in all would tell; null where it is told, or no number would
create view objectives as
select * from raw_objectives
order by run_id, severity, objective, node_class, workload, configuration;
