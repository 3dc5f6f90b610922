-- grain: one function in one kind of profile of one configuration beside the baseline's: those of
--        which the most was saved or added
-- units: flat, cumulative and their changes: in `unit`, medians over the profiles of counted trials
select node_class, workload, configuration, kind, quantity, unit, function,
  baseline_flat, flat, flat_change, baseline_cumulative, cumulative, cumulative_change
from profile_diff
where run_id = $run
  and quantity in ('inuse_space', 'alloc_space', 'goroutine', 'delay')
  and (kind = 'heap') = (quantity = 'inuse_space')
  and (flat_change <> 0 or cumulative_change <> 0)
qualify row_number() over (
  partition by node_class, workload, configuration, kind, quantity
  order by abs(flat_change) desc, abs(cumulative_change) desc, function
) <= 20
order by node_class, workload, kind, quantity, configuration,
  abs(flat_change) desc, abs(cumulative_change) desc, function;
