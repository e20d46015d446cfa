# Everything for work on plait. `make test` and `make demo` need Python 3.10 or later and PyPI; they set up the rest.

PYTHON ?= python3
# The first install of torch, by its pin, so that everything after it finds it there.
TORCH ?= torch==2.13.0
MERGEKIT ?= mergekit==0.1.5
WORKERS ?= 2
# More options of benchmarks/bench.py, such as --tables library --methods ties,della.
BENCH ?=

VENV := .venv
CORE := .venv-core
PEER := .cache/mergekit-venv
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check -qq
SOURCES := $(shell find plait -name '*.py')

.PHONY: help demo test check test-slow mutants parity bench mergekit docs compatibility clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       merge published models and measure what comes out"
	@echo "make test       style, types and all quick tests"
	@echo "make test-slow  the tests that take long or download"
	@echo "make mutants    small faults put into a copy of plait, each of which its tests must notice"
	@echo "make parity     mergekit's kept outputs against plait's"
	@echo "make bench      time and memory, against mergekit where it is installed"
	@echo "make mergekit   install mergekit, in an environment of its own, for make bench"
	@echo "make docs       write the generated pages of docs/ anew"
	@echo "make compatibility  merge a tiny model of every class, and write docs/compatibility.md"
	@echo "make clean      remove what these have made, environments included"

$(VENV)/.made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "$(PYTHON) is older than Python 3.10; name another: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install --upgrade 'pip>=25.1'
	$(BIN)/python $(PIP) install '$(TORCH)'
	$(BIN)/python $(PIP) install -e '.[hf]' --group dev
	touch $@

# Without torch and transformers: what `pip install plait` gives, from the wheel.
$(CORE)/.made: pyproject.toml | $(VENV)/.made
	$(PYTHON) -m venv $(CORE)
	$(CORE)/bin/python $(PIP) install .
	touch $@

$(CORE)/.wheel: $(SOURCES) $(CORE)/.made
	rm -rf build/wheel
	$(BIN)/python $(PIP) wheel --no-deps --no-build-isolation -w build/wheel .
	$(CORE)/bin/python $(PIP) install --no-deps --force-reinstall build/wheel/plait-*.whl
	touch $@

demo: $(VENV)/.made
	$(BIN)/python examples/demo/run.py

check: $(VENV)/.made
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check .
	$(BIN)/mypy

test: check $(CORE)/.wheel
	$(BIN)/python -m pytest -q -n $(WORKERS)

test-slow: $(CORE)/.wheel
	$(BIN)/python -m pytest -q -m slow

mutants: $(VENV)/.made
	$(BIN)/python tests/mutants.py

parity: $(VENV)/.made
	$(BIN)/python -m pytest -q tests/parity

bench: $(CORE)/.wheel
	$(BIN)/python benchmarks/bench.py --python $(CORE)/bin/python --write $(BENCH)

mergekit: $(PEER)/.made

$(PEER)/.made:
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python $(PIP) install --upgrade pip
	$(PEER)/bin/python $(PIP) install '$(TORCH)'
	$(PEER)/bin/python $(PIP) install '$(MERGEKIT)'
	touch $@

docs: $(VENV)/.made
	$(BIN)/python docs/make_methods.py

compatibility: $(VENV)/.made
	$(BIN)/python benchmarks/compatibility.py --write

clean:
	rm -rf $(VENV) $(CORE) $(PEER) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.cache/*' -prune -exec rm -rf {} +
