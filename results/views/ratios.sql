-- grain: one metric of one configuration on one node class, as a ratio to the baseline's; in a run
-- run_id | | run
-- kind | | question that the metric answers: counterparts on other systems have the same
-- workload | | workload
-- baseline | | name of the baseline
-- configuration | | configuration that is compared with it
-- os | | system of the node class: linux or windows
-- node_class | | machines that were compared with each other
-- metric | | name of the metric, see below
-- ratio | configuration per baseline | estimate within blocks: 0.5 is half as much
-- ratio_low | configuration per baseline | lower confidence bound; null when there is none
-- ratio_high | configuration per baseline | upper confidence bound; null when there is none
-- pairs | | blocks in which both have a counted trial
-- verdict | | the comparison's, within the node class
create view ratios as
select
  run_id, kind, workload, baseline, configuration, os, node_class, metric,
  1 + change as ratio, 1 + change_low as ratio_low, 1 + change_high as ratio_high,
  pairs, verdict
from comparison
where relative and change is not null
order by run_id, kind, workload, configuration, os, node_class;
