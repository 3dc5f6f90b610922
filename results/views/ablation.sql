-- grain: one metric of two configurations that differ in exactly one factor, under one workload, in a run: what that factor changes
-- run_id | | run
-- node_class | | machines that may be compared with each other
-- os | | their system: linux or windows
-- workload | | workload
-- factor | | go, env.NAME, build.FLAG (build: several flags of it), limits.NAME, arguments, or binary (a program that was not built here)
-- from_setting | | what from_configuration sets; null: nothing; limits in bytes or cores
-- to_setting | | what to_configuration sets; null: nothing
-- from_configuration | | the baseline, or else the one with the lesser setting
-- to_configuration | | configuration that is compared with it
-- baseline | | whether from_configuration is the baseline: the row is then that of `comparison`
-- metric | | name of the metric, see below
-- unit | | unit of the metric
-- from_value | the metric's own | median of from_configuration over the pairs
-- to_value | the metric's own | median of to_configuration over the pairs
-- relative | | whether the change is a fraction of from_value; else it has the metric's unit
-- change | fraction or the metric's own | estimate of the change within blocks
-- change_low | fraction or the metric's own | lower confidence bound; null when it is infinite
-- change_high | fraction or the metric's own | upper confidence bound; null when it is infinite
-- p | | two-sided p-value of the signed-rank test
-- p_adjusted | | the same, corrected (Holm): with the baseline as in `comparison`, else over the primary metrics of all pairs without it
-- pairs | | blocks in which both have a counted trial
-- is_primary | | whether the metric decides
-- verdict | | as in `comparison`
create view ablation as
select * from raw_ablation
order by
  run_id, node_class, workload, factor, not baseline, from_configuration, to_configuration,
  is_primary desc, metric;
