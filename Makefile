# The two promises: `make repro` runs the main job, `make test` passes the tests; both do all the set-up themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A named parameter set out of params.d/, or `default`; without it params.yaml is used as it is: make repro SET=smoke
SET ?=

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
# Waiting threads sleep instead of spinning: on a shared machine that is several times faster, on an idle one as fast.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help setup repro test check ui compare explain constraints clean

help:  ## list the commands
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(READY)

setup: $(READY)  ## create .venv with the pinned set

repro: $(READY)  ## set up, then run the main job (SET=smoke, SET=sft-high-lr, ...)
	$(if $(SET),metagdpo use $(SET))
	metagdpo check
	dvc repro

test: $(READY)  ## set up, then pass the tests
	python -m pytest

check: $(READY)  ## formatting, lint, types, configuration
	ruff format --check .
	ruff check .
	mypy
	metagdpo check

ui: $(READY)  ## open the MLflow UI on what was run
	metagdpo ui

compare: $(READY)  ## compare the methods of comparison.yaml; goes on where it stopped
	metagdpo check
	metagdpo compare

explain: $(READY)  ## print the chain from questions to version
	metagdpo explain

constraints: $(READY)  ## write constraints.txt from the installed set
	( echo "# The exact set that was installed and tested together (Python 3.11). Regenerate: make constraints"; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -viE '^(metagdpo|pip|setuptools|wheel)\b' | sed 's/+cpu//' ) > constraints.txt

clean:  ## remove what runs leave behind (not .venv, not the ledger)
	rm -rf .work assets data models evaluations reports comparison/base comparison/runs comparison/results comparison/settings comparison/inputs/*.json mlflow.db mlartifacts
