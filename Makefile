# make study: measure and see.   make test: check everything.   Both set up .venv first.
PYTHON ?= python3.11
EXTRA ?= cpu
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Made last, and only if all before it went well, so that a set-up that was killed starts again.
READY := $(VENV)/.ready-$(EXTRA)

.DEFAULT_GOAL := help
.PHONY: help setup study test lint bench clean

help:
	@echo "make setup   install everything into .venv (EXTRA=gpu for NVIDIA GPUs)"
	@echo "make study   run studies/quick.yaml: table, figures, report"
	@echo "make test    lint, types and every test"
	@echo "make bench   what measures speed: ratios, in minutes"
	@echo "make clean   remove .venv and caches (results stay)"

setup: $(READY)

$(READY): pyproject.toml constraints.txt cluster/horovod_build.py
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or name it, make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11, for which constraints.txt is made" >&2; exit 1; }
	@echo "setting up $(VENV): PyTorch, TensorFlow, Ray and the tools"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt pip setuptools wheel
	@# PyTorch first and pinned: asked for by another package it would come in its newest build.
	@$(PIP) install -c constraints.txt torch
	@$(PIP) install -c constraints.txt --no-build-isolation -e ".[$(EXTRA),dev]"
	@$(BIN)/python -m cluster.horovod_build
	@touch $@

study: setup
	@$(BIN)/scaling run studies/quick.yaml

test: lint
	@$(BIN)/python -m pytest

lint: setup
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

bench: setup
	@$(BIN)/python -m pytest -s tests/benchmarks/bench_*.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
