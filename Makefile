# Everything a person types. 'make help' lists it. Works with a plain Python 3.11 and GNU make.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV := .venv
MOTO := .venv-moto
BIN := $(VENV)/bin
# Names no folder of this checkout, so that a moved or copied environment is made anew.
STAMP := $(VENV)/installed

# make run
DATA ?=
PIPELINE ?=
DAYS ?= 3
PORT ?= 8080
KEEP ?=
# make test
TESTS ?=
ARGS ?=
# make bench
BENCH ?=

# uv does not read pip's setting for a local folder of packages.
ifneq ($(strip $(PIP_FIND_LINKS)),)
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
endif
export UV_LINK_MODE ?= copy
# Every task imports its libraries anew; without cached bytecode that takes twice as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run ui stop test lint bench clean lock install

help:  ## This list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(STAMP)  ## Make .venv from requirements.lock (the other targets do it by themselves)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing)." \
	       "Install it, or name it: make $(or $(MAKECMDGOALS),run) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing into $(VENV) (once)"
	@$(PYTHON) -m venv --clear $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(STAMP)

run: $(STAMP)  ## Backfill the last days through Airflow: DATA=<KuaiRand folder> DAYS=3 PORT=8080 PIPELINE=<file> KEEP=1
	@$(BIN)/python -m deploy.local.run --days $(DAYS) --port $(PORT) $(if $(DATA),--data "$(DATA)") \
	  $(if $(PIPELINE),--pipeline "$(PIPELINE)") $(if $(KEEP),--keep)

ui: $(STAMP)  ## Airflow with its UI until Ctrl-C: PORT=8080
	@$(BIN)/python -m deploy.local.ui --port $(PORT)

stop: $(STAMP)  ## End an Airflow that 'make run KEEP=1' left running
	@$(BIN)/python -m deploy.local.ui --stop

test: $(STAMP) $(MOTO)/installed chromium  ## Every test: TESTS=unit|integration|e2e for a part, ARGS="-k name"
	@case "$(TESTS)" in \
	  "") select="" ;; \
	  unit) select="not integration and not e2e" ;; \
	  integration|e2e) select="$(TESTS)" ;; \
	  *) echo "TESTS is unit, integration or e2e, not '$(TESTS)'" >&2; exit 1 ;; \
	esac; \
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest $${select:+-m "$$select"} $(ARGS)

# An S3 endpoint for the lake's tests, in an environment of its own: its dependencies fight with ours.
$(MOTO)/installed: requirements-moto.lock | $(STAMP)
	@echo "installing into $(MOTO) (once)"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(MOTO)
	@$(BIN)/uv pip install --quiet --python $(MOTO)/bin/python -r requirements-moto.lock
	@touch $@

.PHONY: chromium
# The browser of the tests that look at the report and at Airflow's UI.
chromium:
	@if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null \
	    && ! command -v google-chrome >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Chromium (once)"; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
	      >/dev/null || echo "Chromium could not be installed; the browser tests can not run" >&2; \
	  else \
	    echo "no Chromium here and no right to install it; the browser tests need one (apt-get install chromium)" >&2; \
	  fi; \
	fi

lint: $(STAMP)  ## ruff, strict mypy, docstring signatures
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pydoclint --quiet components simulator feature_repo dags deploy benchmarks

bench: $(STAMP)  ## One benchmark: BENCH=train ARGS="--json out.json" (without BENCH: the list)
	@$(BIN)/mfh bench $(or $(BENCH),--help) $(ARGS)

clean:  ## Remove environments, caches and .mfh (lake, models, Airflow's home)
	@if [ -x $(BIN)/python ] && [ -f .mfh/airflow/stack.json ]; then $(BIN)/python -m deploy.local.ui --stop; fi
	rm -rf $(VENV) $(MOTO) .mfh .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist ./*.egg-info
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The local suffix of a CPU build and comments that name a folder of this machine stay out of the lock.
lock: $(STAMP)  ## Resolve requirements.in and requirements-moto.in anew
	@for name in requirements requirements-moto; do \
	  $(BIN)/uv pip compile --quiet --python-version 3.11 --no-header --no-emit-find-links --upgrade $$name.in \
	    | sed -E -e 's/^(torch==[0-9.]+)\+[a-z0-9.]+/\1/' -e '/^[[:space:]]*#.*[[:space:]]\/[^[:space:]]/d' > $$name.tmp; \
	  { echo '# Made by "make lock" from '$$name'.in; do not edit by hand.'; cat $$name.tmp; } > $$name.lock; \
	  rm $$name.tmp; \
	done
