# make demo     the whole story on built-in data, about a minute, into $(DEMO_OUT)
# make test     the test suite, on all cores; PYTEST_OPTIONS="-n 0 -x -k laws" for one process, a part, ...
# make check    all that CI asks: format, lint, types, imports, tests, documentation
# make docs     write the pages that come from the code: docs/forms.md and its pictures, docs/budgets.md
# make format   mend the format and what the linter can mend
# make clean    remove everything that make made
#
# The first call makes the environment .venv; later ones reuse it until pyproject.toml or constraints.txt change.
# POLYAD_DATA, where it is set, is the folder of data sets and checkpoints that some tests look for.

DEMO_OUT ?= demo
PIP_OPTIONS ?=
PYTEST_OPTIONS ?=
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

BIN := .venv/bin
INSTALLED := .venv/installed

# As many tests at a time as there are cores, each on one thread: more threads would wait for each other.
PARALLEL := -n auto --dist worksteal
test: export OMP_NUM_THREADS ?= 1
test: export OPENBLAS_NUM_THREADS ?= 1

# Removes a folder that Polyad wrote, and no other.
FORGET_DEMO = if [ -f "$(DEMO_OUT)/plan.json" ]; then rm -r -- "$(DEMO_OUT)"; fi

.DEFAULT_GOAL := help
.PHONY: help install demo test docs docs-blocks check format lint types imports clean

help:
	@sed -n 's/^# \{0,1\}//; /^make/p' Makefile

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Polyad needs Python 3.11 or newer; found $$("$(or $(PYTHON),python3)" --version 2>&1 || echo none)." \
			"Install it, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(INSTALLED)
	@$(FORGET_DEMO)
	$(BIN)/polyad demo --out "$(DEMO_OUT)"

test: $(INSTALLED)
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_OPTIONS)

docs: $(INSTALLED)
	$(BIN)/python docs/make_forms.py
	$(BIN)/python docs/make_budgets.py

docs-blocks: $(INSTALLED)
	$(BIN)/python -m pytest tests/test_readme.py $(PYTEST_OPTIONS)

lint: $(INSTALLED)
	$(BIN)/ruff format --check --diff .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/pyright

imports: $(INSTALLED)
	$(BIN)/lint-imports --no-logo

check: lint types imports test

format: $(INSTALLED)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist src/*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
	@$(FORGET_DEMO)
