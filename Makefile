# `make help` lists what there is. Everything runs from a fresh clone on Debian or Ubuntu, as root for the cluster.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests watch clocks, and a machine may be busy with others: what failed is run once more, and listed as RERUN.
TWICE := --reruns 1 -raR
UV_COMPILE := ../$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: help venv tools demo demo-down test lint unit component contract e2e images push manifests stubs verify faults clients \
	bench-control bench-server bench-storage bench-traffic scan sbom lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: venv ## a real cluster, two real models, real traffic: leaves everything up
	$(BIN)/python -m inflight_demo up

demo-down: ## remove the demo's cluster: no process, mount or namespace stays
	dev/cluster down

test: ## everything: lint, unit, component, contract, e2e on a real cluster of its own
	@dev/test

venv: $(VENV)/.installed ## the Python environment, pinned with hashes
$(VENV)/.installed: requirements/dev.txt operator/pyproject.toml model-server/pyproject.toml dev/venv
	@PYTHON=$(PYTHON) dev/venv

tools: ## build or find the cluster's programs (cached outside the checkout), install its Debian packages
	dev/cluster tools

lint: venv ## ruff, mypy --strict, import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: venv ## pure and in-process tests, 2 s each at most
	$(BIN)/pytest tests/unit --timeout 20 $(TWICE)

component: venv tools ## each part against real neighbours: API server, Envoy, sockets
	$(BIN)/python tests/support/object_stores.py
	$(BIN)/pytest tests/component --timeout 180 $(TWICE)

contract: venv tools ## CRD == parser == chart == RBAC == columns
	$(BIN)/pytest tests/contract --timeout 180

e2e: venv ## the whole thing on the cluster that is up (see dev/cluster status)
	$(BIN)/pytest tests/e2e -m e2e --timeout 600 $(TWICE)

images: venv ## build the images and load them into the cluster
	dev/cluster images

push: venv ## build and push the images: make push REGISTRY=registry.example/inflight
	@test -n "$(REGISTRY)" || { echo "make push REGISTRY=<registry>/<path>"; exit 2; }
	dev/cluster push "$(REGISTRY)"

manifests: venv tools ## write what manifests/ has of the chart
	$(BIN)/python -m inflight_demo.manifests

stubs: venv ## write the gRPC API's descriptor and types from its .proto
	$(BIN)/python -m inflight_demo.stubs

verify: venv tools ## fail when something generated is stale
	$(BIN)/python -m inflight_demo.manifests --check
	$(BIN)/python -m inflight_demo.stubs --check

SCAN := build/scan
$(SCAN)/.installed: requirements/scan.txt $(VENV)/.installed
	$(BIN)/uv venv -q --clear $(SCAN)
	$(BIN)/uv pip install -q --python $(SCAN)/bin/python --require-hashes -r $<
	@touch $@

scan: venv tools $(SCAN)/.installed ## bandit, kube-score, pip-audit; OFFLINE=1 leaves out the last
	$(BIN)/python -m inflight_scan $(if $(OFFLINE),--offline)

sbom: venv $(SCAN)/.installed ## a CycloneDX bill of materials for each image, in build/sbom
	$(BIN)/python -m inflight_scan.sbom

clients: venv ## KServe's own clients against our server, in an environment of theirs (not part of make test)
	$(BIN)/pytest tests/clients --timeout 600

faults: venv ## the long fault tests (not part of make test)
	$(BIN)/pytest tests/faults -m e2e --timeout 1800

bench-control: venv ## control-plane numbers on the cluster that is up; results under benchmarks/results
	$(BIN)/python -m benchmarks.control

bench-traffic: venv ## what changes and faults cost requests, on the cluster that is up; results under benchmarks/results
	@command -v h2load >/dev/null || { apt-get update -qq && apt-get install -y -qq nghttp2-client >/dev/null; }
	$(BIN)/python -m benchmarks.traffic

bench-server: venv ## ours beside other model servers; ONLY=W1,W2 SERVERS=ours,mlserver ROUNDS=5
	@command -v wrk >/dev/null || { apt-get update -qq && apt-get install -y -qq wrk >/dev/null; }
	$(BIN)/python -m benchmarks.server $(if $(ONLY),--only $(ONLY)) $(if $(SERVERS),--servers $(SERVERS)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-storage: venv ## a model from an S3 server, ours beside s5cmd and aria2; results under benchmarks/results
	@command -v aria2c >/dev/null || { apt-get update -qq && apt-get install -y -qq aria2 >/dev/null; }
	$(BIN)/python -m benchmarks.bench_storage --json benchmarks/results/storage.json --markdown benchmarks/results/storage.md

lock: venv ## resolve requirements/*.in anew
	cd requirements && $(UV_COMPILE) --upgrade -o dev.txt dev.in
	cd requirements && $(UV_COMPILE) --upgrade -o scan.txt scan.in
	cd requirements && for part in operator model-server router; do $(UV_COMPILE) -c dev.txt -o $$part.txt $$part.in; done

clean: ## remove what was built in the checkout
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
