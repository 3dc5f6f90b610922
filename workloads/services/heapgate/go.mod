module heapgate/heapgate

go 1.21
