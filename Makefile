# `make demo` and `make test` are all that a newcomer needs; the rest is for those who work on it.
PYTHON ?= python3
BIN := .venv/bin
AREA ?= all
# Tests that measure run alone. Those that mostly wait for machines to join or to be missed, and
# those that only read and write, run side by side.
WAITING := tests/cluster tests/wine tests/orchestrator/test_head_join.py
READING := tests/results tests/workloads tests/test_generated.py
PYTEST := $(BIN)/python -m pytest --durations=20 --durations-min=5
TWO := --numprocesses=2 --dist=loadfile
# What measures may be spoiled by whoever shares the machine: tried once more, and told.
TWICE := --reruns=1 -rR

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types imports bench docs lock wire clean

help: ## Show what there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

demo: .venv/ready ## Install, then measure the shipped claim end to end (about 3 minutes)
	$(BIN)/bench demo

test: .venv/ready-dev ## Install what the tests need, then run them
	@tests/prepare.sh
	$(PYTEST) $(TWICE) $(READING:%=--ignore=%) $(WAITING:%=--ignore=%)
	$(PYTEST) $(TWO) $(READING)
	$(PYTEST) $(TWICE) $(TWO) $(WAITING)

check: lint types imports ## Everything that CI asks besides the tests

lint: .venv/ready-dev ## Ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready-dev ## mypy, strict; the workers as on Windows too
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --exclude '/(linux|cgroup\w*|groupfolder|facts_linux)\.py$$' workers

imports: .venv/ready-dev ## Who may import whom
	$(BIN)/lint-imports --no-cache

bench: .venv/ready-dev ## Measure our own hot paths: make bench AREA=core|cluster|load|results|signoff
	$(BIN)/python -m tests.benchmarks --area $(AREA)

docs: .venv/ready-dev ## Regenerate docs/matrix.md, docs/sql.md and docs/cli.md
	$(BIN)/python -m tests.docs

wire: .venv/ready-dev ## Regenerate results/wire from proto/
	PATH=$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc \
	  --proto_path=results/wire=proto/heapgate/telemetry/v1 --proto_path=results/wire=proto/heapgate/cluster/v1 \
	  --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
	  results/wire/telemetry.proto results/wire/cluster.proto
	PATH=$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc \
	  --proto_path=results/wire=proto/heapgate/profile/v1 --python_out=. --mypy_out=quiet:. \
	  results/wire/profile.proto

lock: .venv/ready-dev ## Refresh the locked versions from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --no-emit-index-url --python-version 3.11 \
	  pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --no-emit-index-url --python-version 3.11 \
	  pyproject.toml --group dev -o requirements-dev.lock

clean: ## Remove the environment and what tools left
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

# Debian splits venv from python3: as root we fetch it, else we say what to ask for.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Heapgate needs Python 3.11 or later; try: make PYTHON=python3.12 demo"; exit 4; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv; } \
	  || { echo "$(PYTHON) has no venv module; install it first: apt install python3-venv"; exit 4; }
	$(PYTHON) -m venv .venv

.venv/ready: .venv/bin/python requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

.venv/ready-dev: .venv/bin/python requirements-dev.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@ .venv/ready
