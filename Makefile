# Every command a developer needs; CI uses the same. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PACKAGES := fedui aggregator client_agent protos tests benchmarks
PROTOS := $(wildcard protos/fedui/v1/*.proto)
BOOTSTRAP := $(PYTHON) scripts/bootstrap.py

.DEFAULT_GOAL := help
.PHONY: help setup demo up test browser screenshots lint fmt protos api lock screenshot chaos security api-fuzz bench clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv with all extras but torch, from the lock
	@$(BOOTSTRAP) $(if $(TORCH),--torch)

demo: setup ## A server and five agents training on real data, live in the browser (TORCH=1, ARGS="--no-browser --rounds 5 --exit")
	@$(BIN)/fedui demo $(if $(TORCH),--torch) $(ARGS)

up: setup ## A server on this machine: web, worker, beat, embedded Redis, SQLite
	@$(BIN)/fedui up $(ARGS)

test: ## Linters, type checks, migrations check and all tests
	@$(BOOTSTRAP) --torch-if-local
	@$(BIN)/python scripts/test.py $(ARGS)

browser: setup ## The browser tests alone: every page and act, both themes, desk and phone; screenshots go to var/browser
	@$(BIN)/python scripts/test.py --browser

screenshots: setup ## Make the pictures anew that the main pages are held against (tests/browser/looks)
	FEDUI_RENEW_LOOKS=1 $(BIN)/python -m pytest -q tests/browser/test_looks.py

lint: setup ## Linters and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy fedui aggregator client_agent protos tests benchmarks
	$(BIN)/lint-imports
	$(BIN)/djlint --lint templates
	$(BIN)/python manage.py makemigrations --check --dry-run

fmt: setup ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: setup ## Generate the stubs of protos/
	$(BIN)/python scripts/generate_stubs.py .

api: setup ## Write docs/openapi.yaml, docs/errors.md and docs/authorisation.md anew
	$(BIN)/python manage.py api_documents
	$(BIN)/python -m tests.security.authorisation > docs/authorisation.md

lock: ## Resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url --upgrade --quiet \
		--extra server --extra agent --extra dev --custom-compile-command "make lock" \
		pyproject.toml --output-file requirements.lock

screenshot: setup ## Make docs/run.png anew, with the browser test
	FEDUI_SCREENSHOT=docs/run.png $(BIN)/python -m pytest -q tests/e2e/test_browser.py

chaos: setup ## Do harm to runs, 100 single faults and 20 double ones: one JSON object a line (ARGS="--single 5 --double 1")
	@$(BIN)/python -m tests.chaos $(ARGS)

security: setup ## What tools, planted secrets and strangers find: one JSON object a line
	@$(BIN)/python -m tests.security

api-fuzz: setup ## Schemathesis against a running API, as owner and as stranger: one JSON object a line (ARGS="--cases 300 --minutes 1")
	@$(BIN)/python -m tests.security.fuzz $(ARGS)

bench: setup ## Measure: one JSON object a line
	@for name in aggregation round_time progress_latency durability fleet dashboard; do $(BIN)/python -m benchmarks.$$name || exit 1; done

clean: ## Remove what the commands above have made, but no data of `make up`
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache var/demo
