-- grain: one metric of one configuration on one node class, per the baseline's there
-- units: ratio, ratio_low, ratio_high: configuration per baseline, 0.5 is half as much
from ratios
where run_id = $run
order by kind, workload, configuration, os, node_class;
