# Everything runs inside this checkout (.venv/, .tools/); nothing is installed on the system.
#
#   make demo   [ONCE=1] [JSON=FILE] [KEEP=DIR]   the guided tour of the main job
#   make test   [ARGS="-k name"]                  lint, then every test, on the real parts
#   make rehearse [JSON=FILE]                     a compromised hot key-set: freeze, new keys, rescue
#   make drill                                    leaving without us: all recovered by standard tools
#   make bench  [JSON=FILE] [ONLY=name]           ratios against named peers
#   make fuzz   [EXAMPLES=500] [SEED=n]           the API against its own OpenAPI document, for long
#   make airgap DIR=folder [PYTHON_VERSION=3.13] [PLATFORM=...]   what an offline machine needs
#   make lint | setup | lock | contracts | clean

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup test demo rehearse drill bench fuzz lint lock airgap contracts clean

help:
	@sed -n '3,10s/^# *//p' Makefile

setup:
	@$(PYTHON) -m ops.setup

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two processes, each with its own PostgreSQL, Redis, bitcoind and token; a file's tests stay together.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

demo: setup
	@$(BIN)/strongroom demo $(if $(ONCE),--once) $(if $(JSON),--json '$(JSON)') $(if $(KEEP),--keep '$(KEEP)')

rehearse: setup
	@$(BIN)/strongroom rehearse $(if $(JSON),--json '$(JSON)')

# -s: a person can follow each step.
drill: setup
	@$(BIN)/python -m pytest -s -v --durations=0 tests/drill

bench: setup
	@$(BIN)/python -m ops.bench $(if $(JSON),--json '$(JSON)') $(if $(ONLY),--only '$(ONLY)')

fuzz: setup
	FUZZ_EXAMPLES=$(or $(EXAMPLES),500) FUZZ_SEED=$(or $(SEED),$(shell date +%s)) \
	    $(BIN)/python -m pytest -o timeout=0 tests/integration/test_api_schema.py

# Without options of an index: a lock names packages and hashes, never where they come from.
lock: setup
	$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --no-annotate --no-header \
	    --python-version 3.11 -o requirements-setup.lock ops/setup/requirements.in
	$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --no-annotate --no-header \
	    --python-version 3.11 -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --no-annotate --no-header \
	    --python-version 3.11 --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml
	$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --no-annotate --no-header \
	    --python-version 3.11 -c requirements.lock -o signers/requirements.lock signers/requirements.in
	$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --no-annotate --no-header \
	    --python-version 3.11 -c requirements.lock -o signers/airgap/requirements.lock signers/airgap/requirements.in

airgap: setup
	@$(BIN)/python -m ops.airgap '$(DIR)' $(if $(PYTHON_VERSION),--python $(PYTHON_VERSION)) \
	    $(if $(PLATFORM),--platform $(PLATFORM))

contracts: setup
	$(BIN)/python -m chains.eth.contracts.build --node $(BIN)/node --solc .tools/solc/soljson.js \
	    chains/eth/contracts tests/contracts

clean:
	rm -rf .venv .tools .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
