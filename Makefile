# The chores. `make help` lists them; each sets up what it needs by itself.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# scripts/setup.sh puts uv here where the machine has none.
export PATH := $(CURDIR)/.cache/uv-venv/bin:$(PATH)
export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV

UV ?= uv
RUN := $(UV) run --locked --no-sync
# The engine that answers may be Podman's, where no client looks unless told.
WITH_ENGINE = DOCKER_HOST="$$(python3 scripts/engine_address.py)"

PYTHON_DIRS := $(wildcard src tests benchmarks examples scripts)
# Cheapest first, so that a plain mistake shows before the engine is busy.
FAST := $(wildcard tests/unit tests/contract tests/typing)
REAL := $(wildcard tests/integration tests/acceptance tests/chaos)
FULLY_COVERED := --cov=src/compute_horde/protocol --cov=src/compute_horde/lifecycle --cov-branch \
	--cov-report=term-missing:skip-covered --cov-fail-under=100

.PHONY: help
help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name what; do \
		printf '  %-10s %s\n' "$$name" "$$what"; done

.PHONY: setup
setup: ## install uv if it is missing, and everything in uv.lock into .venv
	@scripts/setup.sh

.PHONY: check
check: setup ## formatting, lint, types and the direction of imports
	$(RUN) ruff format --check $(PYTHON_DIRS)
	$(RUN) ruff check $(PYTHON_DIRS)
	$(RUN) mypy
	$(RUN) lint-imports

.PHONY: format
format: setup ## format the code, and mend what lint can mend by itself
	$(RUN) ruff format $(PYTHON_DIRS)
	$(RUN) ruff check --fix $(PYTHON_DIRS)

.PHONY: test
test: setup ## every test; protocol and lifecycle must be covered to the last branch
	@scripts/system.sh engine registry busybox postgres
	$(WITH_ENGINE) $(RUN) pytest $(FAST) -n auto $(FULLY_COVERED)
	$(WITH_ENGINE) $(RUN) pytest $(REAL) -n 4 --maxschedchunk 1

.PHONY: test-fast
test-fast: setup ## unit and contract tests that need no container engine
	$(RUN) pytest $(FAST) -n auto -m "not engine"

.PHONY: demo
demo: setup ## a whole horde on this machine runs one job
	@scripts/system.sh engine --optional busybox
	$(WITH_ENGINE) $(RUN) horde demo

.PHONY: bench
bench: setup ## measure throughput and latency (benchmarks/)
	@scripts/system.sh engine --optional busybox
	$(WITH_ENGINE) $(RUN) python -m benchmarks

.PHONY: docs
docs: setup ## build the documentation into site/
	$(RUN) mkdocs build --strict

.PHONY: clean
clean: ## remove what the chores wrote, save .venv and .cache
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* dist site
	find $(PYTHON_DIRS) -type d -name __pycache__ -exec rm -rf {} +
