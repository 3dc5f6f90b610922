-- grain: one finding about a trial, something to know before believing it; a trial without any has one row, with nulls
-- run_id | | run of the trial
-- trial_id | | trial
-- configuration | | configuration of the trial
-- workload | | workload of the trial
-- block | | block of the trial
-- node_class | | machines that may be compared with each other
-- valid | | whether the trial's numbers may be used: nothing found is of level invalid
-- counted | | whether they are: this is the last valid attempt
-- level | | invalid (the trial does not count), warning or note; null: nothing was found
-- code | | what kind of finding
-- text | | what was found, for a person
-- remedy | | what would help
create view validity as
select * from raw_validity order by run_id, block, workload, trial_id, level, code, text;
