.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help setup run test test-long lint lab lock audit docs example clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/ready ## create .venv from requirements.lock

$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	  { echo "error: Python 3.11, 3.12 or 3.13 is needed, '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true); name one: make setup PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: setup ## set up, then run the notebooks and write the reports
	$(RUN) run_all.py

test: setup ## set up, then run the test suite
	$(RUN) -m pytest

test-long: setup ## hours of broken runs, thousands of odd inputs, longer trainings (outside make test)
	$(RUN) -m pytest -m "long or fuzz" --dist load --hypothesis-profile=many --hypothesis-show-statistics

lint: setup ## check code, notebooks and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

lab: setup ## open the notebooks in JupyterLab
	$(RUN) -m jupyter lab --notebook-dir=. notebooks

audit: ## ask the advisory database about the packages of the lock (pip-audit, in an environment of its own)
	@test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && .audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit; }
	.audit/bin/pip-audit --strict --disable-pip --no-deps -r requirements.lock

docs: setup ## renew docs/parameters.md from the parameters' model
	$(RUN) -m cxr_utils parameters > docs/parameters.md

example: setup ## a run on the SYNTHETIC phantom, in reports/example, and docs/pictures of its pages (needs chromium)
	$(RUN) run_all.py --data phantom --run example --set resnet50v2.weights=none
	$(RUN) docs/publish.py pictures reports/example

lock: ## renew requirements.lock from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --all-extras --no-header --no-annotate pyproject.toml -o requirements.lock

clean: ## delete the environment and what tools left behind; reports and caches stay
	rm -rf $(VENV) .audit .hypothesis .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
