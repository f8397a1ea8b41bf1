# serve: run the registry from this checkout. test: everything that runs here.
# bundle: one file that installs Moorage where there is no network (docs/deployment.md).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LISTEN ?= 127.0.0.1:5000
DATA ?= data
ARGS ?= -n auto --dist loadgroup

.PHONY: serve test lint format bundle clean

serve: $(VENV)/serve.stamp
	$(BIN)/moorage serve --listen $(LISTEN) --data $(DATA)

test: $(VENV)/dev.stamp
	$(BIN)/pytest $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell registry storage migrations tests docs deploy README.md CHANGELOG.md

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bundle:
	deploy/airgap/build --out dist $(BUNDLE)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/serve.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/dev.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,postgres]'
	touch $@ $(VENV)/serve.stamp
