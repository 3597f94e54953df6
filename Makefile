# Everything runs in .venv, which the first target that needs it makes from requirements.lock.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then echo "$$python"; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/locked.stamp
INSTALLED := $(VENV)/installed.stamp
UV := uv==0.13.9
ARGS ?=
SCALE ?= 100000
PARTS ?= migrate reconcile proof

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test bench sql docs lint fmt check lock clean

help: ## show this list
	@echo "usage: make TARGET [ARGS='...']"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make .venv with memsync and all its tools, from requirements.lock

demo: setup ## migrate and reconcile a made-up app, on stores that need no server
	@$(BIN)/memsync demo $(ARGS)

# A file's tests run in one worker, because they share databases. Each worker has its own servers.
# tests/conftest.py orders the files, because xdist would begin with those of the most tests.
test: setup ## run the tests; ARGS goes to pytest, such as ARGS='--slow -k backfill'
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: setup ## run the benchmarks, small; PARTS=reconcile for one, SCALE=1000000 as in the docs
	@for part in $(PARTS); do $(BIN)/python bench/$$part.py --rows $(SCALE) $(ARGS) || exit; done

sql: setup ## write the scripts for psql in sql/ from sql/parts and the engine's statements
	@$(BIN)/python tools/make_sql.py

docs: setup ## write docs/reference and the picture of the README from the code
	@$(BIN)/python tools/make_docs.py
	@$(BIN)/python tools/make_picture.py

lint: setup ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/lint_sql.py

fmt: setup ## fix and format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

check: lint test ## lint and test: what must pass before a change lands

lock: ## pin the newest versions that pyproject.toml allows into requirements.lock
	@$(require-python)
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet '$(UV)'
	.venv-lock/bin/uv pip compile pyproject.toml --quiet --upgrade --universal \
		--python-version 3.11 --extra embedded --extra distributed --group dev --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
		--output-file requirements.lock

clean: ## remove .venv and what the tools left
	rm -rf $(VENV) .venv-lock .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis dist

# A new lock makes a new environment, so that packages that it no longer names are gone.
$(LOCKED): requirements.lock
	@$(require-python)
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes --requirement requirements.lock
	@touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch $@

define require-python
test -n "$(PYTHON)" || { echo "memsync needs Python 3.11 or newer; name it: make PYTHON=/path/to/python" >&2; exit 1; }
endef
