-- grain: the binary of one configuration in a run, one for each system
-- run_id | | run
-- configuration | | configuration that runs it
-- os | | system that it was built for; null in archives of format 1
-- sha256 | | digest of the file
-- size_bytes | bytes | size of the file
-- go_version | | Go release that built it; null for what is not a Go program
-- build_info | | what the binary says of itself: the text of `go version -m`
-- build_flags | | flags that it was built with, with blanks between
-- commit | | commit of the source in git, -dirty after it when files differed; null where it is in none
create view builds as
select * from raw_builds order by run_id, configuration, os;
