module heapgate/sessioncache

go 1.22

require heapgate/heapgate v0.0.0

replace heapgate/heapgate => ../heapgate
