-- grain: one kind of finding about trials of one configuration: how many have it and an example
-- units: trials: how many
select level, code, configuration, count(distinct trial_id) as trials,
  min(trial_id) as first_trial, arg_min(text, trial_id) as text,
  arg_min(remedy, trial_id) as remedy
from validity
where run_id = $run and code is not null
group by level, code, configuration
order by level, code, configuration;
