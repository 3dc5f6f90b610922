-- grain: the binary of one configuration
-- units: size_bytes: bytes
select configuration, go_version, size_bytes, sha256, build_flags, build_info
from builds
where run_id = $run
order by configuration;
