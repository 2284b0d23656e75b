# make demo | test | check | docs | bench: each sets up .venv by itself, from nothing but Python >= 3.11 and make.

VENV := .venv
BIN := $(VENV)/bin
EXTRAS := dev

# The first interpreter that is new enough; `make PYTHON=/path/to/python` names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

# Two stamps: the demo needs the core alone, everything else the tools too; whoever has the second needs no first.
CORE := $(VENV)/.core-installed
FULL := $(VENV)/.extras-installed
READY := $(if $(wildcard $(FULL)),$(FULL),$(CORE))
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo test test-all check docs bench constraints clean
.DEFAULT_GOAL := demo

demo: $(READY)
	$(BIN)/deepmtdr grade examples/drawings --out out/demo
	@echo
	@echo "These were drawings made by this project. Open out/demo/<drawing>/summary.png for the picture, report.json for the"
	@echo "numbers, out/demo/results.csv for all of them. For photographs of your own:"
	@echo "    $(BIN)/deepmtdr grade PHOTOGRAPH_OR_FOLDER --out out/mine"

# Side by side, one thread each: two at once on two cores take little more than half of the time.
TEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 8

test: $(FULL)
	$(TEST)

test-all: $(FULL)
	$(TEST) -m "not gpu"

check: $(FULL)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -c 'import sys, importlib.util as u; sys.exit(u.find_spec("torchvision") and "torchvision is installed: remove it, its builds break lightning and torchmetrics")'

docs: $(FULL)
	$(BIN)/python docs/generate.py

bench: $(FULL)
	$(BIN)/python -m benchmarks

# Renews constraints.txt: the newest versions that pyproject.toml allows, all extras, without local version tags.
constraints: $(CORE)
	$(BIN)/python -m venv --clear build/constraints
	build/constraints/bin/pip install --quiet '.[train,clinic,deploy,scale,dev]'
	{ grep '^#' constraints.txt; build/constraints/bin/pip freeze --exclude deepmtdr | sed 's/+.*//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) build dist out

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "deepmtdr needs Python >= 3.11, and none was found; say make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV) (first time: a few minutes, PyTorch is large)"
	$(INSTALL) --editable .
	@touch $@

$(FULL): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV) with $(EXTRAS) (first time: a few minutes, PyTorch is large)"
	$(INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@
