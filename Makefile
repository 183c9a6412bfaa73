PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
READY  := $(VENV)/.installed

.PHONY: run test test-all lint bench clean

run: $(READY)  ## replicate hidden alignment; make run ARGS="--n-seeds 5 --rerun"
	$(VENV)/bin/python -m studies.hidden_alignment $(ARGS)

test: $(READY)  ## the default tests
	$(VENV)/bin/python -m pytest -m "not slow" $(ARGS)

test-all: $(READY)  ## also the slow ones
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(READY)
	$(VENV)/bin/ruff check .

bench: $(READY)  ## speed and memory as ratios against a reference, measured in the same run
	$(VENV)/bin/python benchmarks/toy_training.py $(ARGS)
	$(VENV)/bin/python benchmarks/language_scoring.py

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
