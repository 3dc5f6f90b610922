-- grain: one metric of one configuration against the baseline, under one workload, in a run
-- run_id | | run
-- node_class | | machines that may be compared with each other
-- os | | their system: linux or windows
-- workload | | workload
-- baseline | | name of the baseline
-- configuration | | configuration that is compared with it
-- metric | | name of the metric, see below
-- kind | | the same for counterparts on other systems, see `ratios`
-- unit | | unit of the metric
-- baseline_value | the metric's own | median of the baseline over the pairs
-- candidate_value | the metric's own | median of the configuration over the pairs
-- relative | | whether the change is a fraction of the baseline; else it has the metric's unit
-- change | fraction or the metric's own | estimate of the change within blocks
-- change_low | fraction or the metric's own | lower confidence bound; null when it is infinite
-- change_high | fraction or the metric's own | upper confidence bound; null when it is infinite
-- p | | two-sided p-value of the signed-rank test
-- p_adjusted | | the same, corrected (Holm) over all primary metrics of the run
-- p_sign_flip | | two-sided p-value of the permutation test of the mean difference (all signs; of logarithms where `relative`), uncorrected; no verdict rests on it; null with more than 24 pairs
-- pairs | | blocks in which both have a counted trial
-- is_primary | | whether the metric decides
-- verdict | | better, worse, no difference shown, equivalent (±margin), trimmed, not saved, invalid, needs N blocks, or n/a
create view comparison as
select * from raw_comparison
order by run_id, node_class, workload, configuration, is_primary desc, metric;
