# `make demo` and `make test` are all that a fresh machine needs: Python 3.11 or newer, and make.

PYTHON  ?= python3
ARGS    ?=
WORKERS ?= 2
# `NUMERICS=today`: the numerical tests run as another processor computes, another one each day. .ci/run asks for it.
NUMERICS ?=
TODAY    := scripts/portable.py --today --whole
ORDINARY  = -m pytest -n $(WORKERS) --dist worksteal

# The version under which `make site-version` files the site.
VERSION ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/heatproof/__init__.py)

BIN  := .venv/bin
SYNC := .venv/.synced
UV   := $(BIN)/uv --quiet

# One cache serves many projects; where it lies on another disk uv copies, and need not say so.
export UV_LINK_MODE ?= copy
# What is on the machine's own path for Python is not part of the project.
unexport PYTHONPATH PYTHONHOME
# Compiled modules are kept: every process that a test starts would compile PyTorch again.
unexport PYTHONDONTWRITEBYTECODE
# mkdocs prints no advertisement.
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-portable bench gpu fuzz soak lint docs site site-version lock dist clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 22
	@echo 'Extra arguments go in ARGS, as in: make test ARGS="-k rbo -x". Another Python: make test PYTHON=python3.12'

demo: $(SYNC) ## maps of photographs and an audit, in about two minutes: says where the page is
	$(BIN)/heatproof demo --out out/demo $(ARGS)

test: $(SYNC) ## all tests, shared by WORKERS processes of one thread
	$(BIN)/python $(if $(filter today,$(NUMERICS)),$(TODAY),$(ORDINARY)) $(ARGS)

test-portable: $(SYNC) ## the numerical tests as other processors compute: ARGS=--list names the settings
	$(BIN)/python scripts/portable.py $(ARGS)

bench: $(SYNC) ## time beside the floor and the peers; writes benchmarks/latest.json
	$(BIN)/python -m benchmarks $(ARGS)

gpu: $(SYNC) ## maps, metrics and a study on a GPU beside the CPU's; writes benchmarks/gpu.json
	$(BIN)/python scripts/gpu.py $(ARGS)

fuzz: $(SYNC) ## a million damaged files and spellings: each is read or refused, in about 20 minutes
	$(BIN)/python scripts/fuzz.py $(ARGS)

soak: $(SYNC) ## half an hour of explanations and small studies: memory, files and threads stay flat
	$(BIN)/python scripts/soak.py $(ARGS)

lint: $(SYNC) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(SYNC) ## write the generated pages of docs/ again
	$(BIN)/python scripts/make_docs.py $(ARGS)

site: $(SYNC) ## the documentation site in out/site, with its tutorials run, in about two minutes; no network
	$(BIN)/python -m mkdocs build $(ARGS)

site-version: $(SYNC) ## the site as a version beside others, on the branch gh-pages (no push): VERSION=0.2
	$(BIN)/mike deploy --update-aliases $(VERSION) latest $(ARGS)
	$(BIN)/mike set-default latest

lock: $(BIN)/uv ## work out requirements.lock again: names, versions and markers, no addresses
	$(UV) pip compile --all-extras --universal --python-version 3.11 --no-annotate --no-header \
		--no-emit-index-url -o requirements.lock pyproject.toml $(ARGS)

dist: $(SYNC) ## wheel and source archive in dist/, with their tests and `twine check`
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m pytest tests/test_packaging.py $(ARGS)

clean: ## remove the environment, caches and the demo's results
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis out/demo dist
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The environment is what the lock says, and nothing else; `sync` leaves pip and uv where they are.
$(SYNC): requirements.lock pyproject.toml $(BIN)/uv
	@echo 'Filling .venv from requirements.lock (the first time some minutes and 5 GB, most of it PyTorch) ...'
	$(UV) pip sync --python $(BIN)/python requirements.lock
	$(UV) pip install --python $(BIN)/python --no-deps --editable .
	@touch $@

$(BIN)/uv:
	@command -v $(PYTHON) >/dev/null || \
		{ echo 'heatproof needs Python 3.11 or newer. `$(PYTHON)` is not there. Install it, or name another: make test PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "heatproof needs Python 3.11 or newer. $(PYTHON) is $$($(PYTHON) -V 2>&1). Name a newer one: make test PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
