# Two commands for a newcomer: `make demo` and `make test`. Everything they need is set up on the way, in .venv.
# Needs python3 (3.11 to 3.14) with venv, and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench fuzz digits lock clean

help:            ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(VENV)/.runtime   ## a confidential prediction, end to end
	$(BIN)/confonnx demo

test: $(VENV)/.dev tests/interop/node/node_modules/.done   ## every test, and the branch coverage of the core
	$(BIN)/pytest --numprocesses 2 --dist worksteal --cov --cov-report=
	for package in ohttp oip attestation keys; do \
	    $(BIN)/coverage report --include="*/confonnx/$$package/*" --skip-covered --fail-under=95 || exit 1; done

lint: $(VENV)/.dev   ## formatting, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.dev   ## sealed against plaintext, as ratios in one interleaved run
	$(BIN)/python -m benchmarks.sealed_vs_plain

fuzz: $(VENV)/.dev   ## the fuzz targets, ten minutes each
	for target in tests/fuzz/fuzz_*.py; do \
	    $(BIN)/python -m tests.fuzz.$$(basename $$target .py) --seconds 600 || exit 1; done

digits: $(VENV)/.dev   ## train the demo's model again
	$(BIN)/python -m examples.digits.train

lock:            ## resolve the locked versions anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	    --quiet pyproject.toml --extra server --group dev --output-file requirements-dev.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	    --quiet pyproject.toml --extra server --group build --constraint requirements-dev.lock --output-file requirements.lock

clean:           ## remove what `make` made
	rm -rf $(VENV) tests/interop/node/node_modules build dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@ $(VENV)/.runtime

# The interoperability test speaks to the server from Node. Root on Debian or Ubuntu gets Node installed;
# elsewhere a missing npm skips that test with a reason, except in CI, where it fails.
tests/interop/node/node_modules/.done: tests/interop/node/package-lock.json
	@if ! command -v npm >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm; fi
	@if command -v npm >/dev/null; then \
	    cd tests/interop/node && npm ci --silent --no-audit --no-fund --ignore-scripts && touch node_modules/.done; \
	else echo "npm is not installed: the Node interoperability test will be skipped"; fi
