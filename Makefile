# Two commands matter: `make demo` and `make test`. Both set up .venv by themselves.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg
export PYDEVD_DISABLE_FILE_VALIDATION ?= 1

.PHONY: help setup demo test test-slow export lint docs bench lab lock readme clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## create .venv from the hashed lock (about a minute; done by itself when needed)

$(STAMP): requirements.lock setup.py settings.ini pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with make PYTHON=...") if sys.version_info < (3, 11) else None'
	@echo "[setup] creating .venv and installing the locked packages: 1-2 minutes, about 2 GB on disk"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --disable-pip-version-check -q install --require-hashes --only-binary :all: -r tools/uv.lock
	$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock tools/uv.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(STAMP)
	@echo "[setup] done; source .venv/bin/activate puts pil on the path"

demo: $(STAMP)  ## validate on real futures with small settings; prints gates, action and the path of the index
	@echo "[demo] every report on real futures with small settings, then the verdict: about five minutes, two reports at a time"
	$(BIN)/pil demo

test: $(STAMP)  ## every test; see CONTRIBUTING.md for what each part proves
	@echo "[test] about 5,500 tests in seven to thirteen minutes on two cores"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(STAMP)  ## the slow tier as well
	$(BIN)/python -m pytest -n 2 --dist loadfile

export: $(STAMP)  ## notebooks -> package, clean notebooks, README
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/jupyter nbconvert --log-level ERROR --clear-output --inplace reports/*.ipynb
	$(BIN)/nbdev_clean --fname reports
	$(BIN)/python tools/build_readme.py

lint: $(STAMP)  ## ruff and mypy --strict on the exported package
	$(BIN)/ruff check pil_research tests benchmarks tools setup.py
	$(BIN)/mypy

docs: $(STAMP)  ## the documentation site in _docs/html; about a minute, nothing is fetched
	$(BIN)/python tools/build_docs.py

bench: $(STAMP)  ## speed, memory and growth beside other libraries, as ratios; about half an hour
	$(BIN)/pil bench

lab: $(STAMP)  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=.

lock:  ## resolve requirements.lock again (needs uv)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra research --extra dev setup.py -o requirements.lock

clean:  ## remove what commands wrote (not .venv)
	rm -rf runs build _docs .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
