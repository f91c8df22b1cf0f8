# Headrace needs Python 3.11 or newer with its venv, and make; everything else is installed into .venv.
# PIP_ARGS goes to pip as it is, for example an extra index that has CPU builds of PyTorch.
PYTHON ?= python3
PROMPT ?= What is a headrace, and why would a water mill need one? Answer in two sentences.

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS)
SIZE := MB where the index gives PyTorch's CPU build, several GB where it gives the CUDA build (PIP_ARGS can name another index)

.PHONY: run test lint check prove bench docs clean

run: export HEADRACE_PROMPT = $(value PROMPT)
run: $(VENV)/.stamp-run
	@$(BIN)/headrace run -- "$$HEADRACE_PROMPT"

test: lint
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: $(VENV)/.stamp-test
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: $(VENV)/.stamp-test
	@$(BIN)/ruff format --check src tests benchmarks
	@$(MAKE) --no-print-directory test

prove: $(VENV)/.stamp-test
	@$(BIN)/python tests/prove.py $(ARGS)

bench: $(VENV)/.stamp-run
	@$(BIN)/headrace bench --output benchmarks/results/offline.json $(ARGS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Headrace needs Python 3.11 or newer; give one with PYTHON=python3.11." if sys.version_info < (3, 11) else 0)'
	@echo "Creating the environment $(VENV) …"
	@$(PYTHON) -m venv $(VENV) >&2 || { rm -rf $(VENV); \
	  echo "The environment $(VENV) could not be made; install the package python3-venv and run make again." >&2; exit 1; }

$(VENV)/.stamp-run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Headrace with PyTorch into $(VENV): about 200 $(SIZE), a few minutes the first time …"
	@$(INSTALL) --editable '.[torch]'
	@touch $@

$(VENV)/.stamp-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Headrace and its test tools into $(VENV): about 400 $(SIZE), a few minutes the first time …"
	@$(INSTALL) --editable '.[torch,test,dev]'
	@touch $@ $(VENV)/.stamp-run
