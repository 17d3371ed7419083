# Two commands for a newcomer: `make demo` and `make test`. Both fill .venv by themselves.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all check format lint types unit guides docs plain mutants chaos clean

demo: .venv/.runtime
	$(BIN)/jaxad demo --workdir=runs/demo

test: check unit

# Lint and types before tests: what is not tidy is not tested.
check: lint types
	$(BIN)/python -m pytest tests/test_import_law.py

lint: .venv/.development
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/.development
	$(BIN)/mypy

# Files of tests side by side, one process per core: most of the time is compilation, on one core.
PYTEST := -m pytest -n auto --dist loadfile

unit: .venv/.development
	$(BIN)/python $(PYTEST)

# The examples of Ray need more packages than the default tests.
test-all: lint .venv/.ray
	JAXAD_FULL_OPTIMISATION=1 $(BIN)/python $(PYTEST) -m "slow or not slow"

# What README, CONTRIBUTING and the documentation tell people to do, done as it stands there.
guides: .venv/.development
	$(BIN)/python $(PYTEST) -m guide

# Pages that are wrong fail: a warning, a broken link, a reference that leads nowhere.
docs: .venv/.documentation
	$(BIN)/python -m sphinx --quiet -E -a -W --keep-going -b html docs docs/_build/html
	@echo "the documentation is in docs/_build/html/index.html"

# What users install: the wheel alone, without extras, in an empty environment; every command once.
plain:
	rm -rf build/plain && mkdir -p build
	$(PYTHON) -m venv build/plain
	build/plain/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt .
	cd build/plain && bin/python ../../tests/plain_installation.py

# Plants errors in the code and counts those that the tests notice; an hour or more on two cores.
mutants: .venv/.mutants
	$(BIN)/python tests/mutants.py $(ARGS)

# Mutated files over every reader, damaged run folders, killed commands, failing reads; meant to
# take at most an hour on two cores. Each prints a table of what was tried and what came of it; with
# ARGS=--json=FILE they are kept, and a second call goes on where the first stopped.
chaos: .venv/.development
	failed=; for part in inputs reading run_folder kills faults several; do \
	  $(BIN)/python tests/chaos/$$part.py $(ARGS) || failed="$$failed $$part"; \
	done; test -z "$$failed" || { echo "goals missed:$$failed"; exit 1; }

format: .venv/.development
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "jaxad needs Python 3.11 or newer: make PYTHON=python3.11"'
	$(PYTHON) -m venv .venv

.venv/.runtime: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[features]'
	touch $@

.venv/.development: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ .venv/.runtime

.venv/.ray: .venv/.development
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	touch $@

.venv/.documentation: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs,features]'
	touch $@ .venv/.runtime

.venv/.mutants: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutants]'
	touch $@ .venv/.development .venv/.runtime

clean:
	rm -rf .venv .mypy_cache build dist runs docs/_build
