# Everything a person or CI runs. `make serve` and `make test` work on a clean checkout with Python 3.11.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: serve test lint types unit soak bench clean help

help:  ## Show what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

serve: $(READY)  ## Start the gateway on 127.0.0.1:8787
	$(BIN)/carapace-cron serve

test: lint types unit  ## Everything that CI runs

lint: $(READY)  ## Style and security rules
	$(BIN)/ruff check .

types: $(READY)  ## Types, strictly
	$(BIN)/mypy

unit: $(READY)  ## All tests, real servers included
	$(BIN)/pytest -q -n 2 --durations=10

soak: $(READY)  ## What tests do, for longer; see docs/testing.md
	PYTHONPATH=tests $(BIN)/python -m crash.soak
	PYTHONPATH=tests $(BIN)/python -m simulation.story --seeds 10000

bench: $(READY)  ## Speed beside the peers; see docs/performance.md
	$(BIN)/python bench/schedule.py
	$(BIN)/python bench/scheduler.py

clean:  ## Remove what was installed and built
	rm -rf $(VENV) .clients build dist *.egg-info
