# `make demo` and `make test` need nothing but Python 3.11 or newer: each makes .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `make demo CPU=1` installs PyTorch's builds without CUDA.
CPU_TORCH := https://download.pytorch.org/whl/cpu

.PHONY: demo demo-decoder test lint docs results clean

demo: $(VENV)/.installed
	$(BIN)/minddiffuser demo $(ARGS)

test: lint
	$(BIN)/python -m pytest -n 2 --max-worker-restart 0 --dist loadscope --no-loadscope-reorder $(ARGS)

# The decoder that `make demo` uses, made again from nothing: some minutes.
demo-decoder: $(VENV)/.installed
	$(BIN)/minddiffuser train configs/demo.yaml --out build/demo-decoder
	$(BIN)/python -m tools.demo_decoder build/demo-decoder models/demo

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

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
	$(if $(CPU),$(BIN)/python -m pip install --quiet --constraint constraints.txt --index-url $(CPU_TORCH) torch torchvision)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,docs]"
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
