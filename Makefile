PYTHON ?= python3
BIN := .venv/bin
RUN ?= runs/quickstart

.PHONY: install quickstart test lint docs clean

install: .venv/installed

quickstart: install
	$(BIN)/sartor quickstart --run $(RUN)

test: lint
	OMP_NUM_THREADS=1 SARTOR_PROGRESS=0 $(BIN)/pytest -n 2 -m "not slow"
	rm -rf build/quickstart
	$(BIN)/sartor quickstart --run build/quickstart --json

lint: .venv/installed-dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed-dev
	$(BIN)/python benchmarks/results.py

clean:
	rm -rf .venv build runs

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sartor needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@
