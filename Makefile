# serve: run the registry from this checkout.
# check: for every edit, under 90 seconds on 2 cores: format, lint, types, contracts, and the tests of
#   modules and services that take less than half a second, on SQLite, memory and the disk. It leaves
#   out the HTTP API, servers, commands, scenarios, PostgreSQL, S3 and the tests of tests/slow.txt.
# test: everything that runs here; the summary names what it skipped, and why.
# bench: compare Moorage with other registries (benchmarks/README.md); options in ARGS.
# bundle: one file that installs Moorage where there is no network (docs/operate/deployment.md).
ifndef PYTHON
PYTHON := python3
ANY_PYTHON := yes
endif
VENV := .venv
BIN := $(VENV)/bin
LISTEN ?= 127.0.0.1:5000
DATA ?= data
ARGS ?= -n auto --dist loadgroup
CHECKED := tests/auth tests/client tests/config tests/metadata tests/oci tests/services tests/storage
CHECKED += tests/test_*.py
CHECK_ARGS ?= -q -n auto

# What a Python says of itself.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
WORKS := import sys, pip; sys.exit(sys.version_info < (3, 11))
MINOR := import sys; print(sys.version_info[:2])

# Without compiled modules, each process compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# Syncing is slow on a disk, and few unit tests need one. Containers often have 64 MB in memory.
ROOM := df --output=avail --block-size=1G /dev/shm 2>/dev/null | tail -n 1
MEMORY := $(shell [ "$$($(ROOM))" -ge 2 ] 2>/dev/null && echo PYTEST_DEBUG_TEMPROOT=/dev/shm)

.PHONY: serve check unit-tests test lint format bench bundle clean FORCE

serve: $(VENV)/serve.stamp
	$(BIN)/moorage serve --listen $(LISTEN) --data $(DATA)

# The type checker uses one core, so the tests run beside it.
check: $(VENV)/dev.stamp
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint unit-tests

unit-tests: $(VENV)/dev.stamp
	$(MEMORY) $(BIN)/pytest $(CHECK_ARGS) $(CHECKED) \
	  -m "not servers and not slow and not faults and not soak"

test: $(VENV)/dev.stamp
	$(BIN)/pytest $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell registry storage migrations tests benchmarks docs deploy changelog README.md CHANGELOG.md CONTRIBUTING.md

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: ARGS =
bench: $(VENV)/dev.stamp
	PYTHONPATH=. $(BIN)/python -m benchmarks $(ARGS)

bundle:
	deploy/airgap/build --out dist $(BUNDLE)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Kept as long as it works, unless PYTHON names another version. Else made again: the system's Python
# was upgraded, PYTHON was too old, or an attempt was broken off.
$(VENV)/pyvenv.cfg: FORCE
	@wanted="$(if $(ANY_PYTHON),,$(PYTHON))"; \
	if $(BIN)/python -c '$(WORKS)' 2>/dev/null && { [ -z "$$wanted" ] || \
	    [ "$$($(BIN)/python -c '$(MINOR)')" = "$$($$wanted -c '$(MINOR)')" ]; }; then exit 0; fi; \
	$(PYTHON) -c '$(NEW_ENOUGH)' || { \
	  echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); Moorage needs Python 3.11 or newer." >&2; \
	  echo "Name one that is: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }; \
	rm -rf $(VENV); $(PYTHON) -m venv $(VENV)

FORCE:

$(VENV)/serve.stamp: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/dev.stamp: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,postgres]'
	touch $@ $(VENV)/serve.stamp
