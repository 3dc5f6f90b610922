module heapgate/known

go 1.21
