# Motet: the commands a developer needs. Each does its own set-up and is safe to run twice.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV = $(or $(shell hack/venv dev),$(error the virtual environment could not be made; see above))
PYTHON = $(VENV)/bin/python
export PYTHONPATH := $(CURDIR)/api/src:$(CURDIR)/operator/src:$(CURDIR)/gateway/src:$(CURDIR)/runtime/src:$(CURDIR)/hack

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## The main job, from nothing: cluster, chart, adapters, requests, a burst that scales
	$(PYTHON) hack/demo

.PHONY: test
test: check unit process localkube e2e ## Everything CI runs: check, unit, process, localkube and e2e tests

.PHONY: binaries
binaries: ## Build the local cluster's programs and helm (minutes on a cold cache, then nothing)
	hack/localkube build

.PHONY: images
images: ## The three images for local clusters (the runtime's environment once, then seconds)
	hack/images

.PHONY: unit
unit: binaries ## Unit tests: seconds, no cluster
	$(PYTHON) -m pytest -q -m "not localkube and not e2e and not process and not slow and not vllm" tests

.PHONY: process
process: ## Tests of our programs as processes, and on the real 135M model; no cluster
	$(PYTHON) -m pytest -q -m "(process or slow) and not localkube and not e2e and not vllm" tests

.PHONY: localkube
localkube: binaries ## Tests of the development cluster itself
	$(PYTHON) -m pytest -q -m localkube tests

.PHONY: e2e
e2e: binaries images ## The whole product on a real Kubernetes
	$(PYTHON) -m pytest -q -m e2e tests

.PHONY: e2e-vllm
e2e-vllm: ## The agent beside a real vLLM, on the CPU (minutes; the first run installs 1.7 GB)
	$(PYTHON) -m pytest -q -m vllm tests

.PHONY: check
check: ## Lint, types, import contracts, generated files up to date
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy bench hack/generate_crds.py examples/train_adapters.py
	$(VENV)/bin/lint-imports --config .importlinter
	$(PYTHON) hack/generate_crds.py --check

.PHONY: bench
bench: ## Benchmarks, the engine's and its peers' and the gateway's; figures go to bench/results/
	cd $(CURDIR) && PYTHONPATH=$(PYTHONPATH):$(CURDIR) $(PYTHON) -m bench.kernels
	cd $(CURDIR) && PYTHONPATH=$(PYTHONPATH):$(CURDIR) $(PYTHON) -m bench.engine
	cd $(CURDIR) && PYTHONPATH=$(PYTHONPATH):$(CURDIR) $(PYTHON) -m bench.many
	cd $(CURDIR) && PYTHONPATH=$(PYTHONPATH):$(CURDIR) $(PYTHON) -m bench.serving
	cd $(CURDIR) && PYTHONPATH=$(PYTHONPATH):$(CURDIR) $(PYTHON) -m bench.gateway
	bench/report

.PHONY: bench-operator
bench-operator: binaries ## The operator at ten thousand adapters, on a cluster of hollow nodes (ten minutes)
	cd $(CURDIR) && PYTHONPATH=$(PYTHONPATH):$(CURDIR) $(PYTHON) -m bench.operator

.PHONY: format
format: ## Format and fix what ruff can
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

.PHONY: crds
crds: ## Write crds/ and the chart's copy from the types
	$(PYTHON) hack/generate_crds.py

.PHONY: lock
lock: ## Pin the dependencies anew into requirements/
	hack/lock

.PHONY: dockerfiles
dockerfiles: ## Build the three Dockerfiles without Docker, by buildah (minutes)
	hack/dockerfiles

.PHONY: kind
kind: ## For machines with Docker: images, a kind cluster and the chart
	hack/kind.sh

.PHONY: clean
clean: ## Remove this checkout's caches and every local cluster (the shared cache folder stays)
	hack/localkube clean --all
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
