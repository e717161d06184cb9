# Everything from a fresh clone: `make demo` and `make test` make the environment they need.

PYTHON ?= python3
# Processes that run the tests; each holds PyTorch, some 1 GiB.
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# torch_xla runs with the torch release it was built for, so it has an environment of its own.
XLA := .venv-xla
XLA_READY := $(XLA)/.ready
XLA_VERSION := 2.9.0

.PHONY: help demo test lint fuzz test-slow test-xla docs bench clean

help:
	@echo "make demo       train a small causal language model on this Python's own sources, and use it"
	@echo "make test       every check: style, types, layering, tests, the built wheel"
	@echo "make lint       the checks that run no code: ruff, mypy, import-linter"
	@echo "make fuzz       ten minutes of seeded mutations: configs, checkpoints, command lines; make test runs a fiftieth"
	@echo "make test-slow  the tests that train for minutes"
	@echo "make test-xla   operators and a training step on an XLA device of this CPU; downloads torch_xla and its torch, 3 GB"
	@echo "make docs       the documentation as a site in build/site; warnings are errors"
	@echo "make bench      import cost, decoding cost by position, convolutions in every FFT backend"
	@echo "make clean      remove the environment and what runs left behind"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,export,quantize,docs,dev]'
	@touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

fuzz: $(READY)
	SPECTRAL_FUZZ=1 $(BIN)/python -m pytest tests/fuzz

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

$(XLA_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(XLA)
	grep -vE '^(torch|triton)==' constraints.txt > $(XLA)/constraints.txt
	$(XLA)/bin/python -m pip install --quiet --constraint $(XLA)/constraints.txt \
		torch==$(XLA_VERSION) torch_xla==$(XLA_VERSION) pytest --editable .
	@touch $@

test-xla: $(XLA_READY)
	PJRT_DEVICE=CPU $(XLA)/bin/python -m pytest -m xla tests/xla

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)
	$(BIN)/python benchmarks/imports.py
	$(BIN)/python benchmarks/decoding.py
	$(BIN)/python benchmarks/online.py --lengths 1024 4096 16384
	$(BIN)/spectral bench fft --quick

clean:
	rm -rf $(VENV) $(XLA) runs build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
