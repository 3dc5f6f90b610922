module heapgate/sessioncache

go 1.22
