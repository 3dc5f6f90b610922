module heapgate/misbehave

go 1.21
