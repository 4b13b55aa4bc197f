# make demo    train a small model in about three minutes, and see it write
# make test    lint, types and tests
# make test-machines  the tests that touch kernels, as other processors would run them, in about 20 minutes
# make bench   training beside other people's code, in about five minutes; the others are in benchmarks/README.md
# All build .venv when it is missing, and are quick the second time.

PYTHON ?= python3
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif

.PHONY: demo test test-machines lint bench clean

demo: .venv/.installed
	@test -d data/pylib || $(BIN)/minigpt prepare pylib --out data/pylib --tokenizer bpe:4096
	@if test -d runs/demo; \
	then $(BIN)/minigpt resume runs/demo; \
	else $(BIN)/minigpt train --data data/pylib --run runs/demo --preset laptop; fi
	@for prompt in "Return the" "class Thread" "The module"; do echo; echo "--- $$prompt"; \
	$(BIN)/minigpt generate runs/demo --prompt "$$prompt" --max-new-tokens 80 --temperature 0.6 --seed 2 || exit; done
	@echo
	@echo "Try next:"
	@echo "  $(BIN)/minigpt generate runs/demo --prompt \"If the file\" --temperature 0.5"
	@echo "  $(BIN)/minigpt report runs/demo                    # one page about it, to open in a browser"
	@echo "  $(BIN)/minigpt doctor runs/demo"
	@echo "  $(BIN)/minigpt explore runs/demo                   # see inside the model, in a browser"
	@echo "  $(BIN)/minigpt resume runs/demo --epochs 12        # train it further"
	@echo "  $(BIN)/minigpt prepare MY_TEXTS/ --out data/mine --tokenizer bpe:4096"
	@echo "  $(BIN)/minigpt train --data data/mine --run runs/mine --preset laptop"
	@echo "The curves are in runs/demo/training_metrics.png; how it works is in docs/tour.md."

test: lint
	$(BIN)/python -m pytest

test-machines: .venv/.installed
	$(BIN)/python -m tests.test_machines

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.installed
	$(BIN)/python benchmarks/training.py --out build/bench

.venv/.installed: pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit('Mini-GPT needs Python 3.11 or newer: make PYTHON=python3.12 ...' if sys.version_info < (3, 11) else 0)"
	@echo "installing into .venv: a minute or a few, most of it PyTorch"
	@test -d .venv || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@$(PYTHON) -c "open('.venv/.installed', 'w').close()"

clean:
	rm -rf .venv data runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
