# Targets: demo, format, check, test-fast, test, test-all, docs, bench, hooks, constraints, clean.
# Each one sets up .venv if needed. Only Python >= 3.11 and make are required.

VENV := .venv
BIN := $(VENV)/bin
EXTRAS := dev

# The first interpreter that is new enough. Another one: make PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

# Two stamp files: `make demo` needs only the core packages, everything else also the development tools.
CORE := $(VENV)/.core-installed
FULL := $(VENV)/.extras-installed
READY := $(if $(wildcard $(FULL)),$(FULL),$(CORE))
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: mutation demo format check test-fast test test-all docs bench hooks constraints clean
.DEFAULT_GOAL := demo

demo: $(READY)
	$(BIN)/deepmtdr grade examples/drawings --out out/demo --overwrite
	@echo
	@echo "These photographs are drawings made by this project. Results: out/demo/<drawing>/summary.png (picture) and"
	@echo "report.json (numbers) for each drawing, out/demo/results.csv for all of them. For your own photographs:"
	@echo "    $(BIN)/deepmtdr grade PHOTOGRAPH_OR_FOLDER --out out/mine"

format: $(FULL)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check: $(FULL)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -c 'import sys, importlib.util as u; sys.exit(u.find_spec("torchvision") and "torchvision is installed: remove it, its builds break lightning and torchmetrics")'

# One thread in each process: on two cores, two processes take little more than half of the time.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 8

# Tests of the equations, the network, the scores, recipes and label sets: less than a minute. Use it after each change, and
# `make test` before a commit.
FAST := tests/test_losses.py tests/test_labels.py tests/test_recipe.py tests/test_checkpoint.py tests/model tests/metrics \
	tests/test_grading_losses.py tests/training/test_step_losses.py tests/training/test_steps_by_hand.py \
	tests/training/test_steps_task_aware.py tests/training/test_backward.py

test-fast: $(FULL)
	$(PYTEST) -m "not slow and not gpu and not data" $(FAST)

test: $(FULL)
	$(PYTEST)

test-all: $(FULL)
	$(PYTEST) -m "not gpu"

# Changes the code in 200 places, one at a time, and counts the changes that a fast test notices; an hour or more.
mutation: $(FULL)
	$(BIN)/python tests/mutation.py coverage
	$(BIN)/python tests/mutation.py run

docs: $(FULL)
	$(BIN)/python docs/generate.py

bench: $(FULL)
	$(BIN)/python -m benchmarks

# Installs the git hooks of .pre-commit-config.yaml.
hooks: $(FULL)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet pre-commit
	$(BIN)/pre-commit install

# Writes constraints.txt again: the newest versions that pyproject.toml allows, all extras, without local version tags.
constraints: $(CORE)
	$(BIN)/python -m venv --clear build/constraints
	build/constraints/bin/pip install --quiet '.[train,clinic,deploy,scale,dev]'
	{ grep '^#' constraints.txt; build/constraints/bin/pip freeze --exclude deepmtdr | sed 's/+.*//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) build dist out

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found; run: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) (the first time takes a few minutes: PyTorch is large)"
	$(INSTALL) --editable .
	@touch $@

$(FULL): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) with $(EXTRAS) (the first time takes a few minutes: PyTorch is large)"
	$(INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@
