# `make demo` and `make test` are all that a newcomer needs; the rest is for those who work on it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: wire
wire: ## Regenerate results/wire from proto/
	$(BIN)/python -m grpc_tools.protoc --proto_path=results/wire=proto/heapgate/telemetry/v1 \
	  --python_out=. --grpc_python_out=. --pyi_out=. results/wire/telemetry.proto
