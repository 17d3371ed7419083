# Two commands for a newcomer: `make demo` and `make test`. Both fill .venv by themselves.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all check format lint unit clean

demo: .venv/.runtime
	$(BIN)/jaxad demo --workdir=runs/demo

test: check unit

# Lint before tests: what is not tidy is not tested.
check: lint
	$(BIN)/python -m pytest tests/test_import_law.py

lint: .venv/.development
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

unit: .venv/.development
	$(BIN)/python -m pytest

test-all: lint
	$(BIN)/python -m pytest -m "slow or not slow"

format: .venv/.development
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "jaxad needs Python 3.11 or newer: make PYTHON=python3.11"'
	$(PYTHON) -m venv .venv

.venv/.runtime: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/.development: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ .venv/.runtime

clean:
	rm -rf .venv build dist runs
