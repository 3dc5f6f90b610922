module heapgate/null

go 1.22
