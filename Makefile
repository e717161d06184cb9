# Everything from a fresh clone: `make demo` and `make test` make the environment they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint test-slow bench clean

help:
	@echo "make demo       train a small causal language model on this Python's own sources, and use it"
	@echo "make test       every check: style, types, layering, tests, the built wheel"
	@echo "make lint       the checks that run no code: ruff, mypy, import-linter"
	@echo "make test-slow  the tests that train for minutes"
	@echo "make bench      import cost, decoding cost by position, convolutions in every FFT backend"
	@echo "make clean      remove the environment and what runs left behind"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	@touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

bench: $(READY)
	$(BIN)/python benchmarks/imports.py
	$(BIN)/python benchmarks/decoding.py
	$(BIN)/python benchmarks/online.py --lengths 1024 4096 16384
	$(BIN)/spectral bench fft --quick

clean:
	rm -rf $(VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
