module heapgate/launcher

go 1.21
