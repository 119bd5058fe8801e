# make study: measure and see.   make test: check everything.   Both set up .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
XLA := .venv-xla
# What was set up last is kept up, unless the other is asked for.
EXTRA ?= $(or $(shell cat $(VENV)/.extra 2>/dev/null),cpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
INSTALL := $(PIP) install -c constraints.txt
# Named after what it was made from, and made last: nothing to do is known at once, and a set-up
# that was killed, or is out of date, is done again.
READY := $(VENV)/.ready-$(EXTRA)-$(firstword $(shell cat pyproject.toml constraints.txt | cksum))

.DEFAULT_GOAL := help
.PHONY: help setup horovod study test test-gpu lint setup-xla test-xla bench clean

help:
	@echo "make setup    install everything into .venv (EXTRA=gpu for NVIDIA GPUs)"
	@echo "make study    run studies/quick.yaml: table, figures, report"
	@echo "make test     lint, types and every test, in some 20 minutes; PART=analysis for a part"
	@echo "make test-gpu what needs an NVIDIA GPU, with EXTRA=gpu set up"
	@echo "make lint     lint and types"
	@echo "make test-xla PyTorch/XLA's tests, in an environment of their own (.venv-xla)"
	@echo "make bench    what measures speed: ratios, in ten minutes; PART=training for a part"
	@echo "make horovod  build Horovod again where its build has failed"
	@echo "make clean    remove .venv and caches (results stay)"

setup: $(READY)
	@$(BIN)/python -m cluster.horovod.build

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
	  || { echo "$(PYTHON) is not a Python 3.11: install it, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@! kill -0 "$$(cat $(VENV)/.installing 2>/dev/null)" 2>/dev/null \
	  || { echo "another set-up of $(VENV) is running (process $$(cat $(VENV)/.installing))" >&2; exit 1; }
	@# Packages that were half installed, or are for the other kind of machine, are not built upon.
	@if test -e $(VENV)/.installing || { test -e $(VENV)/.extra && test "$$(cat $(VENV)/.extra)" != "$(EXTRA)"; }; \
	  then echo "starting $(VENV) afresh"; rm -rf $(VENV); fi
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $(VENV)/.ready-*
	@echo $$PPID >$(VENV)/.installing
	@echo "setting up $(VENV) (1/2): PyTorch"
	@# First, alone and pinned: asked for by another package it would come in its newest build.
	@$(INSTALL) pip setuptools wheel
	@$(INSTALL) torch
	@echo "setting up $(VENV) (2/2): TensorFlow, Ray and the tools"
	@PYTHONWARNINGS=ignore $(INSTALL) --no-build-isolation -e ".[$(EXTRA),dev]"
	@echo "$(EXTRA)" >$(VENV)/.extra
	@rm $(VENV)/.installing
	@touch $@

horovod: $(READY)
	@$(BIN)/python -m cluster.horovod.build --again

study: setup
	@$(BIN)/scaling run studies/quick.yaml

# PART is a folder of tests, by its path below tests or its name, or what comes after test_ in a file's name, or
# several of them; all that are called so.
TESTS = $(shell find tests -name 'test_*.py')
FOLDERS = $(shell find tests -name 'test_*.py' | sed -n -e ':up' -e 's|/[^/]*$$||' -e '/\//!b' -e p -e 'b up' | sort -u)
PARTS = $(sort $(patsubst tests/%,%,$(FOLDERS)) $(notdir $(FOLDERS)) $(patsubst test_%.py,%,$(notdir $(TESTS))))
FILES = $(filter $(foreach part,$(PART),%/$(part) %/test_$(part).py),$(FOLDERS) $(TESTS))

test: setup
	@$(if $(filter-out $(PARTS),$(PART)),echo "PART=$(PART): there are $(PARTS)" >&2; exit 2)
	@$(BIN)/python -m tests.missing
	@# Lint beside the tests, most of which wait for something; what it says stands once more at the end.
	@said=$(VENV)/.lint; $(MAKE) --no-print-directory lint >$$said 2>&1 & lint=$$!; tests=0; \
	  $(BIN)/python -m pytest -n logical --maxprocesses=4 --durations=20 $(FILES) \
	    || tests=$$?; \
	  wait $$lint || { echo "make lint has failed:"; cat $$said; tests=1; }; exit $$tests

test-gpu:
	@$(MAKE) --no-print-directory setup EXTRA=gpu
	@$(BIN)/python -m pytest -m gpu

lint: setup
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@said=$$($(BIN)/lint-imports --no-logo --no-cache) || { echo "$$said"; exit 1; }

# PyTorch/XLA is tied to PyTorch 2.9, so it has an environment of its own, outside `make test`: 7 GB.
setup-xla: $(XLA)/.ready

$(XLA)/.ready: constraints-xla.txt pyproject.toml
	@test -x $(XLA)/bin/python || $(PYTHON) -m venv $(XLA)
	@echo "setting up $(XLA): PyTorch/XLA"
	@$(XLA)/bin/python -m pip --disable-pip-version-check -qq install -c constraints-xla.txt pip setuptools wheel
	@$(XLA)/bin/python -m pip --disable-pip-version-check -qq install -c constraints-xla.txt --no-build-isolation \
	  torch torch_xla pytest pytest-timeout -e .
	@touch $@

test-xla: setup-xla
	@$(XLA)/bin/python -m pytest tests/xla

# PART is one of them, or several: each is tests/benchmarks/bench_PART.py.
BENCHES := $(patsubst tests/benchmarks/bench_%.py,%,$(wildcard tests/benchmarks/bench_*.py))

bench: setup
	@$(if $(filter-out $(BENCHES),$(PART)),echo "PART=$(PART): there are $(sort $(BENCHES))" >&2; exit 2)
	@$(BIN)/python -m pytest -s $(patsubst %,tests/benchmarks/bench_%.py,$(or $(PART),$(sort $(BENCHES))))

clean:
	rm -rf $(VENV) $(XLA) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
