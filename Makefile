# make demo    train a small model in about three minutes, and see it write
# make test    tests, lint and types
# Both build .venv when it is missing, and are quick the second time.

PYTHON ?= python3
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
DEMO := runs/demo

.PHONY: demo test lint clean

.venv/.installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Mini-GPT needs Python 3.11 or newer: make PYTHON=python3.12 ...')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	$(BIN)/python -c "open('.venv/.installed', 'w').close()"

data/pylib: | .venv/.installed
	$(BIN)/minigpt prepare pylib --out data/pylib --tokenizer bpe:4096

demo: .venv/.installed | data/pylib
	$(BIN)/python tools/demo.py

test: .venv/.installed lint
	$(BIN)/python -m pytest

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	$(PYTHON) -c "import shutil; [shutil.rmtree(f, ignore_errors=True) for f in ('.venv', 'data', 'runs', '.pytest_cache', '.mypy_cache', '.ruff_cache', '.hypothesis')]"
