# `make` lists what there is. Two commands matter: `make start` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
PIP := $(BIN)/pip install -q --disable-pip-version-check
.DEFAULT_GOAL := help
.PHONY: help setup start audit-packages sbom run-local logs-local test test-fast test-v serve predict-health predict-text predict-positive predict-negative db-list start-services stop-services k8s-quick-deploy k8s-port-forward bench lint lint-style lint-types messages pictures rehearse

help: ## List the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/installed: requirements.txt requirements-samples.txt
	@$(PYTHON) -c 'import sys; sys.exit("Lorasite needs Python 3.11 or newer; set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing packages (a few minutes the first time) …"
	@$(PIP) pip==26.3  # that of Python 3.11 takes a third longer for the rest
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps -r requirements-samples.txt
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt requirements-export.txt $(VENV)/installed
	@$(PIP) -r requirements-dev.txt
	@touch $@

setup: $(VENV)/installed ## Make .venv and install everything
start: setup ## Run everything: Redis, worker and web server
	@exec $(MANAGE) start --end-with-parent
run-local: setup ## Train from a YAML in the foreground (config=config/default.yaml)
	@$(MANAGE) run_local $(or $(config),config/default.yaml)
logs-local: setup ## Follow the newest run's log (exp=NAME for another)
	@$(MANAGE) logs_local $(exp) --follow
# Each process of a test, hundreds in all, would otherwise compile our code again where the environment forbids .pyc files.
test test-fast test-v: export PYTHONDONTWRITEBYTECODE =
# Two processes of tests share the cores: more threads would wait for each other. Runs on the site set their number themselves.
test test-fast test-v: export OMP_NUM_THREADS = 1
# Each test makes folders and removes them, which takes a disk milliseconds each and memory none: a tenth of the time of the quick ones.
test test-fast test-v: export TMPDIR := $(shell free=$$(df --output=avail /dev/shm 2>/dev/null | tail -n 1); [ "$${free:-0}" -gt 2000000 ] && echo /dev/shm || echo "$${TMPDIR:-/tmp}")
test: $(VENV)/installed-dev ## Run the whole test suite (options='…' for pytest)
	@$(BIN)/pytest -n 2 --dist worksteal $(options)
test-fast: $(VENV)/installed-dev ## The quick tests: no browser, no other processes, nothing above an eighth of a second
	@$(BIN)/pytest -n 2 --dist worksteal -m "not browser and not process and not slow and not medium" $(options)
test-v: $(VENV)/installed-dev ## The same, a line per test
	@$(BIN)/pytest -v
serve: setup ## Serve trained models over HTTP (exp=NAME for one) at port 8100
	@exec $(MANAGE) serve --end-with-parent $(if $(exp),--exp $(exp))
predict-health: setup ## Ask a running `make serve` how it is
	@$(MANAGE) predict_health
predict-text: setup ## Predict one text: make predict-text text='…'
	@$(MANAGE) predict --text "$$text"
predict-positive: setup ## Predict a friendly sentence
	@$(MANAGE) predict --text 'What a lovely day, thank you so much!'
predict-negative: setup ## Predict an angry sentence
	@$(MANAGE) predict --text 'This is the worst service I have ever seen.'
db-list: setup ## List datasets, tasks and experiments in the database
	@$(MANAGE) db_list
start-services: ## The whole installation in containers (Docker Compose) at http://localhost:8000
	@deploy/make-secrets && docker compose up --build --detach --wait
stop-services: ## Stop the containers; their volumes stay
	@docker compose down
rehearse: $(VENV)/installed-dev ## Build the images and run compose.yaml in real containers (Debian 12, root)
	@deploy/rehearsal/run $(if $(keep),--keep)
k8s-quick-deploy: ## Into the Kubernetes cluster that kubectl points at (kind, minikube, Docker Desktop)
	@deploy/k8s-quick-deploy
k8s-port-forward: ## Reach what runs in the cluster at http://localhost:8000
	@kubectl -n lorasite port-forward service/web 8000:80
bench: $(VENV)/installed-dev ## Time the engine beside the usual trainer, on the sample base model and a random bert-base
	@$(BIN)/python bench/train.py
	@$(BIN)/python bench/train.py --base bert-base --steps 5 --seeds 1
lint: lint-style lint-types ## Format, lint, types, import layers
lint-style: $(VENV)/installed-dev
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports
lint-types: $(VENV)/installed-dev
	@$(BIN)/mypy .
messages: $(VENV)/installed-dev ## Update and compile the translations (needs Debian's gettext)
	@$(MANAGE) makemessages --locale zh_Hant --add-location never --no-wrap --no-obsolete --ignore tests --ignore bench --ignore deploy --ignore client
	@$(MANAGE) compilemessages --locale zh_Hant --ignore .venv
pictures: $(VENV)/installed-dev ## Take the pictures in docs/images again (needs Chromium)
	@PICTURES=$(CURDIR)/docs/images $(BIN)/pytest -p no:xdist lorasite/tests/test_browser.py -k pictures
audit-packages: $(VENV)/installed-dev ## Known holes in the packages that we run on (asks PyPI)
	@$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r requirements.txt
sbom: $(VENV)/installed-dev ## Write sbom.json: every installed package with version and licence (CycloneDX)
	@$(BIN)/cyclonedx-py environment $(VENV) --output-reproducible --of JSON -o sbom.json && echo sbom.json

export text
