-- grain: one thing to know about a trial before believing it
-- run_id | | run of the trial
-- trial_id | | trial
-- configuration | | configuration of the trial
-- level | | invalid (the trial does not count), warning or note
-- code | | what kind of finding
-- text | | what was found, for a person
-- remedy | | what would help
create view findings as
select * from raw_findings order by run_id, trial_id, level, code, text;
