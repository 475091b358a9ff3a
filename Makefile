# Everything goes through setup_env.sh, which does nothing when the environment is up to date.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON_BIN := .venv/bin/python

.PHONY: help setup demo test test-slow lint bench

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install into .venv (./setup_env.sh --help: other builds of torch, CUDA extensions)
	@./setup_env.sh

demo: setup ## lift a stereo photo, train a surface renderer, render videos, print a table of metrics
	$(PYTHON_BIN) scripts/demo.py

test: setup ## run the tests (minutes)
	$(PYTHON_BIN) -m pytest

test-slow: setup ## run only the long campaigns: kills, full disks, full-size structures
	$(PYTHON_BIN) -m pytest -m slow

lint: setup ## style, format, types, which floor may import which
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: setup ## run every benchmark with its default arguments and print the tables
	@status=0; for script in benchmarks/*.py; do \
	  echo "== $$script"; $(PYTHON_BIN) "$$script" || status=1; \
	done; exit $$status
