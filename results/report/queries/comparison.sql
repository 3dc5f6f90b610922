-- grain: one metric of one configuration against the baseline, under one workload on one node class
-- units: values in the metric's own unit (column unit); change as a fraction of the baseline where
--        `relative`, else in the metric's unit
from comparison
where run_id = $run
order by node_class, workload, configuration, is_primary desc, metric;
