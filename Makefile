# The project's commands. Each sets up what it needs by itself: a virtual environment in .venv with what requirements/ lists,
# and the storage emulator in local_stack/azurite/node_modules. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Without its compiled files each of the many processes that tests and demo start would compile our sources anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
# Three times the cores of a small machine: half of the time tests wait for a process or a time-out of another. On two cores
# eight took a minute and a half longer than six, and four minutes more of CPU. Each takes up to a gigabyte.
WORKERS ?= 6
ARGS ?=
KEEP ?=
NODES ?=
# cpu, or cuda where a GPU is to be used.
TORCH ?= cpu

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/pip --quiet --quiet --disable-pip-version-check
AZURITE := local_stack/azurite/node_modules/.installed

.PHONY: help install demo demo-down test lint cluster-test bench scale quality fuzz storm lock behind clean

help: ## list the commands
	@echo "make COMMAND, where COMMAND is"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "PYTHON=python3.12 chooses the interpreter (3.11 or newer) for a new .venv."

install: $(INSTALLED) $(AZURITE) ## set everything up, run nothing

demo: $(INSTALLED) $(AZURITE) ## train real models from queue messages on this machine (KEEP=1 leaves it running; NODES=2: one on 2 nodes, too)
	@$(BIN)/python -m local_stack demo $(if $(KEEP),--keep) $(if $(NODES),--nodes $(NODES)) $(ARGS)

demo-down: $(INSTALLED) ## stop what `make demo KEEP=1` left running
	@$(BIN)/python -m local_stack down

lint: $(INSTALLED) ## check style, format, types and who imports whom
	@echo "ruff check"
	@$(BIN)/ruff check --quiet .
	@echo "ruff format --check"
	@$(BIN)/ruff format --check --quiet . || { echo "error: run $(BIN)/ruff format ." >&2; exit 1; }
	@echo "mypy"
	@$(BIN)/mypy --no-error-summary
	@echo "lint-imports"
	@said=$$($(BIN)/lint-imports --no-logo --no-cache) || { echo "$$said" >&2; exit 1; }

# In a new folder each worker would rewrite every test's assertions, a quarter of a minute of CPU: once does for all, while
# the other core has the type checker, which has no cache there either.
test: $(INSTALLED) $(AZURITE) ## lint, then every test (ARGS="tests/local_stack/test_azurite.py -k folder" narrows it)
	@trap wait EXIT; \
	    compgen -G "tests/__pycache__/conftest*pytest*.pyc" >/dev/null || $(BIN)/pytest -q --collect-only >/dev/null 2>&1 & \
	    $(MAKE) lint
	@echo "pytest, $(WORKERS) workers"
	@$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Variables that are empty are not handed on.
cluster-test: $(INSTALLED) $(AZURITE) ## the contract suite, the main job and its failures on a cluster (KUBECONFIG=F NAMESPACE=N DISPATCHER_IMAGE=I TRAINER_IMAGE=I)
	@$(BIN)/python -m tests.cluster $(if $(KUBECONFIG),--kubeconfig '$(KUBECONFIG)') $(if $(NAMESPACE),--namespace '$(NAMESPACE)') \
	    $(if $(DISPATCHER_IMAGE),--dispatcher-image '$(DISPATCHER_IMAGE)') $(if $(TRAINER_IMAGE),--trainer-image '$(TRAINER_IMAGE)') \
	    $(if $(AZURITE_IMAGE),--azurite-image '$(AZURITE_IMAGE)') $(if $(PULL_SECRET),--pull-secret '$(PULL_SECRET)') \
	    $(if $(PORTAL),--portal '$(PORTAL)') $(if $(PORTAL_KEY),--portal-key '$(PORTAL_KEY)') \
	    $(if $(STORAGE),--storage '$(STORAGE)') $(if $(GPUS),--gpus '$(GPUS)') $(if $(DRAIN),--drain) $(ARGS)

bench: $(INSTALLED) $(AZURITE) ## how many requests a second become Jobs, beside a bare loop of the same calls
	@$(BIN)/python -m benchmarks $(ARGS)

scale: $(INSTALLED) $(AZURITE) ## memory, CPU and calls of a dispatcher beside 100 to 10,000 trainings (KUBECONFIG=F NAMESPACE=N: on a cluster)
	@$(BIN)/python -m benchmarks.scale $(ARGS)

quality: $(INSTALLED) ## train every built-in task beside scikit-learn's best and xz, and rank ours among plain rivals; fails under a gate, or where ours is not first (an hour and a half on two cores)
	@$(PIP) install --require-hashes --no-deps --requirement requirements/quality.txt
	@$(BIN)/python -m benchmarks.quality $(ARGS)

fuzz: $(INSTALLED) ## read damaged files of every format, a minute each (ARGS="--seconds 10 parquet csv" narrows it)
	@$(BIN)/python -m tests.fuzz $(ARGS)

storm: $(INSTALLED) $(AZURITE) ## kill dispatchers and fail everything around them: nothing lost, nothing doubled
	@$(BIN)/python -m local_stack.storm $(ARGS)

lock: $(INSTALLED) ## write requirements/ anew after a change of pyproject.toml (ARGS=--upgrade takes newer versions)
	@$(BIN)/python -m requirements.lock $(ARGS)

behind: $(INSTALLED) ## say which of the pinned packages have newer releases, or were withdrawn
	@$(BIN)/python -m requirements.behind $(ARGS)

clean: ## remove all that these commands made: .venv, .local, the emulator, caches
	@if [ -x $(BIN)/python ] && [ -e .local ]; then $(BIN)/python -m local_stack down --quiet || true; fi
	@rm -rf $(VENV) .local local_stack/azurite/node_modules local_stack/azurite/.lock *.egg-info build dist
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The project itself has no hash: it is what lies here, and nothing is downloaded for it.
$(INSTALLED): pyproject.toml $(wildcard requirements/*.txt)
	@echo "installing Python packages into $(VENV) (once; a few minutes)"
	@if [ ! -x $(BIN)/python ]; then \
	    $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	        { echo "error: $(PYTHON) is no Python 3.11 or newer; say which one: make PYTHON=python3.12" >&2; exit 1; }; \
	    $(PYTHON) -m venv $(VENV); \
	fi
	@$(PIP) install --require-hashes --no-deps --retries 2 --requirement requirements/torch-$(TORCH).txt || \
	    { [ $(TORCH) = cpu ] && echo "PyTorch without CUDA cannot be had here: the build with CUDA, several GB, takes its place" \
	        && $(PIP) install --require-hashes --no-deps --requirement requirements/torch-cuda.txt; }
	@$(PIP) install --require-hashes --no-deps --requirement requirements/develop.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(PIP) check
	@touch $@

$(AZURITE): local_stack/azurite/package.json local_stack/azurite/package-lock.json | $(INSTALLED)
	@echo "installing the storage emulator Azurite into local_stack/azurite/node_modules (once; half a minute)"
	@$(BIN)/python -m local_stack.azurite install
	@touch $@
