# Two commands for a newcomer: `make demo` and `make test`. Everything they need is set up on the way, in .venv.
# Needs python3 (3.11 to 3.14) with venv, and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := python -m pip --disable-pip-version-check --quiet

# Tools that check the Helm chart, in an environment of their own.
KUBERNETES    := .venv-k8s
NODE_PACKAGES := tests/interop/node/node_modules/.done tests/kubernetes/node/node_modules/.done

# Other model servers, to compare with, and what draws the comparison; each in an environment of its own.
PEERS := fastapi bentoml kserve mlserver triton plot

# What tests use, each with its Debian package. Root on Debian or Ubuntu gets the missing ones installed; elsewhere the
# tests that need them are skipped with a reason, except in CI, where they fail.
SYSTEM := node=nodejs npm=npm strace=strace nginx=nginx-light openssl=openssl swtpm=swtpm swtpm_setup=swtpm-tools \
    tpm2=tpm2-tools /usr/share/ovmf/OVMF.fd=ovmf podman=podman runc=runc debootstrap=debootstrap shellcheck=shellcheck

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench bench-peers fuzz digits lock clean

help:            ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: $(VENV)/.runtime   ## a confidential prediction, end to end
	$(BIN)/confonnx demo

test: $(VENV)/.dev $(VENV)/.system $(KUBERNETES)/.done $(NODE_PACKAGES)   ## every test, and the coverage of the core
	$(BIN)/pytest --numprocesses 2 --dist worksteal --cov --cov-report=
	for package in ohttp oip attestation keys; do \
	    $(BIN)/coverage report --include="*/confonnx/$$package/*" --skip-covered --fail-under=95 || exit 1; done

lint: $(VENV)/.dev   ## formatting, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.dev   ## sealed against plaintext, as ratios in one interleaved run
	$(BIN)/python -m benchmarks.sealed_vs_plain --json build/bench/sealed.json

bench-peers: $(VENV)/.dev $(PEERS:%=build/peers/%/.done)   ## sealed against other model servers in the clear
	$(BIN)/python -m benchmarks.against_peers --json build/bench/peers.json

fuzz: $(VENV)/.dev   ## the fuzz targets, ten minutes each
	for target in tests/fuzz/fuzz_*.py; do \
	    $(BIN)/python -m tests.fuzz.$$(basename $$target .py) --seconds 600 || exit 1; done

digits: $(VENV)/.dev   ## train the demo's model again
	$(BIN)/python -m examples.digits.train

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --no-strip-extras \
    --quiet
lock:            ## resolve the locked versions anew (needs uv)
	$(LOCK) pyproject.toml --extra server --group dev --output-file requirements-dev.lock
	$(LOCK) pyproject.toml --extra server --group build --constraint requirements-dev.lock --output-file requirements.lock
	$(LOCK) pyproject.toml --extra server --constraint requirements.lock --output-file deploy/docker/server.lock
	$(LOCK) --group build --constraint requirements.lock --output-file deploy/docker/build.lock
	$(LOCK) tests/kubernetes/requirements.in --output-file tests/kubernetes/requirements.lock
	$(LOCK) --no-deps tests/kubernetes/requirements-alone.in >> tests/kubernetes/requirements.lock
	for peer in $(PEERS); do $(LOCK) benchmarks/peers/requirements/$$peer.in \
	    --output-file benchmarks/peers/requirements/$$peer.lock || exit 1; done

clean:           ## remove what `make` made
	rm -rf $(VENV) $(KUBERNETES) $(dir $(NODE_PACKAGES)) build dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/$(PIP) install --require-hashes -r requirements.lock
	$(BIN)/$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(BIN)/$(PIP) install --require-hashes -r requirements-dev.lock
	$(BIN)/$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@ $(VENV)/.runtime

$(VENV)/.system: | $(BIN)/python
	@for pair in $(SYSTEM); do \
	    command -v "$${pair%=*}" >/dev/null || [ -e "$${pair%=*}" ] || missing="$$missing $${pair#*=}"; done; \
	if [ -z "$$missing" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then export DEBIAN_FRONTEND=noninteractive; \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else echo "not installed, so their tests are skipped:$$missing"; fi
	@touch $@

$(KUBERNETES)/.done: tests/kubernetes/requirements.lock
	$(PYTHON) -m venv $(KUBERNETES)
	$(KUBERNETES)/bin/$(PIP) install --no-compile --no-deps --require-hashes -r $<
	touch $@

build/peers/%/.done: benchmarks/peers/requirements/%.lock
	$(PYTHON) -m venv build/peers/$*
	build/peers/$*/bin/$(PIP) install --no-compile --only-binary :all: --require-hashes -r $<
	touch $@

%/node_modules/.done: %/package-lock.json $(VENV)/.system
	@if command -v npm >/dev/null; then \
	    cd $* && npm ci --silent --no-audit --no-fund --ignore-scripts && touch node_modules/.done; fi
