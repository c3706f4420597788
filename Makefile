# `make demo` and `make test` need nothing but Python 3.11 or newer: each makes .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint results clean

demo: $(VENV)/.installed
	$(BIN)/minddiffuser demo $(ARGS)

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadscope $(ARGS)

results: $(VENV)/.installed
	$(BIN)/python -m benchmarks.results $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing into $(VENV) (PyTorch is several GB; the first time takes a few minutes)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
