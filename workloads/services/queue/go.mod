module heapgate/queue

go 1.22
