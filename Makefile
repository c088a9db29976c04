# Everything a person types. 'make help' lists it. Works with a plain Python 3.11 and GNU make.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV := .venv
MOTO := .venv-moto
KFP := .venv-kfp
BIN := $(VENV)/bin
# Names no folder of this checkout, so that a moved or copied environment is made anew.
STAMP := $(VENV)/installed
TESTED := $(VENV)/tested

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
# What the build leaves here names the entry points a second time: Airflow would find the plugin twice.
	@rm -rf mfh_pipeline.egg-info
	@touch $(STAMP)

# What a day does without: tests, checks, audits, Spark, what benchmarks compare with.
$(TESTED): requirements-test.lock | $(STAMP)
	@echo "installing what tests need into $(VENV) (once)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements-test.lock
	@touch $@

run: $(STAMP)  ## Backfill the last days through Airflow: DATA=<KuaiRand folder> DAYS=3 PORT=8080 PIPELINE=<file> KEEP=1
	@$(BIN)/python -m deploy.local.run --days $(DAYS) --port $(PORT) $(if $(DATA),--data "$(DATA)") \
	  $(if $(PIPELINE),--pipeline "$(PIPELINE)") $(if $(KEEP),--keep)

ui: $(STAMP)  ## Airflow with its UI until Ctrl-C: PORT=8080
	@$(BIN)/python -m deploy.local.ui --port $(PORT)

stop: $(STAMP)  ## End an Airflow that 'make run KEEP=1' left running
	@$(BIN)/python -m deploy.local.ui --stop

test: $(TESTED) $(MOTO)/installed $(KFP)/installed chromium java servers  ## Every test: TESTS=unit|integration|e2e for a part, TESTS=faults for killed machines, ARGS="-k name"
	@case "$(TESTS)" in \
	  "") select="not faults" ;; \
	  unit) select="not integration and not e2e and not faults" ;; \
	  integration|e2e|faults) select="$(TESTS)" ;; \
	  *) echo "TESTS is unit, integration, e2e or faults, not '$(TESTS)'" >&2; exit 1 ;; \
	esac; \
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m "$$select" $(ARGS)

# An S3 endpoint for the lake's tests, in an environment of its own: its dependencies fight with ours.
$(MOTO)/installed: requirements-moto.lock | $(STAMP)
	@echo "installing into $(MOTO) (once)"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(MOTO)
	@$(BIN)/uv pip install --quiet --python $(MOTO)/bin/python -r requirements-moto.lock
	@touch $@

# Kubeflow's compiler and local runner, in an environment of its own: it needs an older protobuf.
$(KFP)/installed: requirements-kfp.lock | $(STAMP)
	@echo "installing into $(KFP) (once)"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(KFP)
	@$(BIN)/uv pip install --quiet --python $(KFP)/bin/python -r requirements-kfp.lock
	@touch $@

.PHONY: servers
# PostgreSQL and Redis, which the tests of the cluster start for themselves.
servers:
	@if ! { command -v redis-server && { command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; }; } >/dev/null 2>&1; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing PostgreSQL and Redis (once)"; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      postgresql redis-server; } >/dev/null || echo "they could not be installed; the cluster's tests can not run" >&2; \
	  else \
	    echo "no PostgreSQL or Redis here and no right to install them; the cluster's tests need both" >&2; \
	  fi; \
	fi

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

.PHONY: java
# What the tests of the Spark offline store run on.
java:
	@if ! command -v java >/dev/null && [ -z "$$JAVA_HOME" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Java (once)"; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      default-jre-headless; } >/dev/null || echo "Java could not be installed; the tests of Spark can not run" >&2; \
	  else \
	    echo "no Java here and no right to install it; the tests of Spark need one (default-jre-headless)" >&2; \
	  fi; \
	fi

lint: $(TESTED)  ## ruff, strict mypy, docstring signatures, licences and known vulnerabilities of what is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pydoclint --quiet components simulator feature_repo dags deploy benchmarks
	$(BIN)/mfh dependencies check

bench: $(TESTED)  ## One benchmark: BENCH=train ARGS="--json out.json" (without BENCH: the list)
	@$(BIN)/mfh bench $(or $(BENCH),--help) $(ARGS)

clean:  ## Remove environments, caches and .mfh (lake, models, Airflow's home)
	@if [ -x $(BIN)/python ] && [ -f .mfh/airflow/stack.json ]; then $(BIN)/python -m deploy.local.ui --stop; fi
	rm -rf $(VENV) $(MOTO) $(KFP) .mfh .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist ./*.egg-info
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The local suffix of a CPU build and comments that name a folder of this machine stay out of the lock.
lock: $(STAMP)  ## Resolve the requirements files anew
	@for name in requirements requirements-test requirements-moto requirements-kfp; do \
	  $(BIN)/uv pip compile --quiet --python-version 3.11 --no-header --no-emit-find-links --upgrade $$name.in \
	    | sed -E -e 's/^(torch==[0-9.]+)\+[a-z0-9.]+/\1/' -e '/^[[:space:]]*#.*[[:space:]]\/[^[:space:]]/d' > $$name.tmp; \
	  { echo '# Made by "make lock" from '$$name'.in; do not edit by hand.'; cat $$name.tmp; } > $$name.lock; \
	  rm $$name.tmp; \
	done
