module heapgate/collecting

go 1.21
