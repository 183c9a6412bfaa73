PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
# Modules are compiled when they are first imported: most of what torch brings never is.
PIP    := $(VENV)/bin/python -m pip install --quiet --no-compile
RUN    := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev

.PHONY: run report paper-scale test probes test-all test-lowest probe-coverage lint docs bench clean

run: $(RUN)  ## replicate hidden alignment; make run ARGS="--n-seeds 5 --rerun"
	$(VENV)/bin/python -m studies.hidden_alignment $(ARGS)

report: $(RUN)  ## every question, answered from the stored cells: artifacts/index.html
	$(VENV)/bin/python -m studies.report $(ARGS)

MODEL ?= smollm2-135m-instruct
BASE  ?=
LARGE ?=
DEVICE ?= auto

paper-scale: $(RUN)  ## language studies on models of your own; make paper-scale MODEL=... BASE=... LARGE=... ARGS=--plan
	$(VENV)/bin/python -m tools.paper_scale --model $(MODEL) --base "$(BASE)" --large "$(LARGE)" --device $(DEVICE) $(ARGS)

test: $(DEV) probes  ## the default tests, and the probes of all studies
	$(VENV)/bin/python -m pytest -m "not slow" $(ARGS)

probes: $(DEV)  ## tiny cells of every study, made again and compared with tests/probes
	$(VENV)/bin/python -m mechsub recheck --probes --workers 2

test-all: $(DEV)  ## also the slow ones
	$(VENV)/bin/python -m pytest $(ARGS)

test-lowest:  ## the default tests on the oldest versions that pyproject.toml allows, in an environment of their own
	mkdir -p build
	$(PYTHON) tools/lowest.py > build/lowest.txt
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/python -m pip install --quiet --no-compile --constraint build/lowest.txt --editable '.[dev]'
	build/lowest/bin/python -m pytest -m "not slow" $(ARGS)

probe-coverage: $(DEV)  ## lines of measuring code that no probe runs
	$(VENV)/bin/python -m tools.probe_coverage

lint: $(DEV)  ## style, types, dependencies, and the API reference without a warning
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/deptry .
	$(MAKE) docs

docs: $(DEV)  ## the API reference from docstrings, in build/docs
	$(VENV)/bin/python -W error::UserWarning -m pdoc --no-show-source --output-directory build/docs mechsub '!mechsub.__main__' '!mechsub.commands'

bench: $(RUN)  ## speed and memory as ratios against a reference, measured in the same run
	$(VENV)/bin/python benchmarks/toy_training.py $(ARGS)
	$(VENV)/bin/python benchmarks/language_scoring.py

$(RUN): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(DEV): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[dev]'
	touch $(RUN) $@

clean:
	rm -rf $(VENV)
