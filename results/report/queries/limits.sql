-- grain: one limit of one configuration, once for each way in which it was applied
-- units: asked, read_back: bytes (memory) or cores (cpus); trials: how many had it so
select configuration, name, asked, read_back, enforced, mechanism, reason, count(*) as trials
from limits
where run_id = $run
group by all
order by all;
