# Runs from a fresh clone, with only make and Python 3.11 or newer. Everything is installed into .venv.
#   make PYTHON=python3.13 test     with another interpreter (make clean first, if .venv has one already)
#   make test ARGS="-k lease -x"    with options of pytest
#   make test-console PICTURES=docs/screenshots    takes the console's pictures of the documentation again

PYTHON ?= python3
ARGS ?=
MINUTES ?= 10
OUTAGES ?= 40
PICTURES ?=
VENV := .venv
BIN := $(VENV)/bin
CELERY := tests/integration/celery
# Peers have their own environment, because they need other versions of our libraries.
PEERS := .venv-peers

.DEFAULT_GOAL := help
.PHONY: help demo test proofs test-brokers test-console faults plans outages faults-baseline bench bench-scale check docs screenshots clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/servers.stamp ## show sagas that survive killed workers: half a minute, without Docker
	@$(BIN)/python -m tests.faults.demo

test: $(VENV)/contribute.stamp ## run the tests on real servers
	@$(BIN)/python -m pytest $(ARGS)

# The tests of workers, on each broker that Debian has. The suite itself runs on Valkey.
test-brokers: $(VENV)/contribute.stamp ## run the tests of workers on RabbitMQ and redis-server too: installs both, as root
	@test -x /usr/sbin/rabbitmq-server -a -x /usr/bin/redis-server -a -x /usr/bin/redis-sentinel || \
	  apt-get install --yes --no-install-recommends rabbitmq-server redis-server redis-sentinel
	@$(BIN)/python -m pytest -m "brokers or not brokers" $(CELERY)/test_brokers.py $(ARGS)
	@for broker in redis rabbitmq; do echo "--- $$broker"; \
	  SAGAS_TEST_BROKER=$$broker $(BIN)/python -m pytest $(CELERY)/test_worker.py $(CELERY)/test_broker.py \
	    $(CELERY)/test_host.py $(ARGS) || exit 1; done

proofs: $(VENV)/contribute.stamp ## explore more than the suite: a second scan, five times as many examples; two minutes
	@$(BIN)/python -m pytest -m proofs $(ARGS)
	@SAGAS_TEST_EXAMPLES=500 $(BIN)/python -m pytest tests/unit/test_progress_properties.py \
	  tests/contract/test_storages_agree.py $(ARGS)

# Every page and action of the console, in Debian's Chromium. Without Chromium the suite skips these tests.
test-console: $(VENV)/contribute.stamp ## run the tests of the console in a real Chromium: installs it, as root
	@command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || \
	  apt-get install --yes --no-install-recommends chromium-headless-shell fonts-dejavu-core
	@SAGAS_PICTURES=$(PICTURES) $(BIN)/python -m pytest tests/integration/console $(ARGS)

faults: $(VENV)/contribute.stamp ## kill, freeze and cut off real processes: make faults [MINUTES=10] [SEED=...]
	@$(BIN)/python -m pytest -m defaults $(CELERY)/test_takeover.py
	@$(BIN)/python -m tests.faults.run --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

plans: $(VENV)/contribute.stamp ## check that every statement uses its index on a million sagas: two minutes
	@SAGAS_TEST_ROWS=1000000 $(BIN)/python -m pytest -n 0 --timeout 900 tests/integration/storage/test_queries.py

outages: $(VENV)/contribute.stamp ## stop the broker under busy workers of every pool: make outages [OUTAGES=40] [SEED=...]
	@$(BIN)/python -m tests.faults.outages --outages $(OUTAGES) $(if $(SEED),--seed $(SEED))

faults-baseline: $(PEERS)/stamp ## inject the same faults into python-cqrs with plain Celery tasks, and compare [SEED=...]
	@$(PEERS)/bin/python -m benchmarks.peers.cqrs_faults $(if $(SEED),--seed $(SEED))

bench: $(VENV)/contribute.stamp $(PEERS)/stamp ## measure speed against the limit and against peers: a quarter of an hour
	@$(BIN)/python -m benchmarks.run --peers-python $(PEERS)/bin/python; met=$$?; \
	  $(PEERS)/bin/python -m benchmarks.publish && exit $$met

bench-scale: $(VENV)/contribute.stamp $(PEERS)/stamp ## measure ten million sagas, the console's pages, pruning a million, and a worker's memory after 100,000
	@$(BIN)/python -m benchmarks.run --scale; met=$$?; $(PEERS)/bin/python -m benchmarks.publish && exit $$met

check: $(VENV)/contribute.stamp ## check lint, format, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/contribute.stamp ## build the documentation as a site, in site/
	@$(BIN)/python -m docs.reference
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # --quiet would hide its warnings from --strict
	@echo "The site is in site/. $(BIN)/mkdocs serve shows it, and updates it as you write."

screenshots: $(VENV)/contribute.stamp ## take the pictures in docs/screenshots again, from a real Flower: needs Chromium
	@$(BIN)/python -m docs.screenshots

clean: ## remove .venv and all caches
	rm -rf $(VENV) $(PEERS) build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# servers.stamp and contribute.stamp: the package is installed with that extra, as these files say.
$(VENV)/%.stamp: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
	  { echo "There is no $(PYTHON) here: install Python 3.11 or newer, or name it: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11: install a newer one, or name it: make PYTHON=python3.13 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) lacks its venv module: install it (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@echo "Setting up $(VENV), once ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

$(PEERS)/stamp: pyproject.toml benchmarks/constraints.txt $(VENV)/contribute.stamp
	@echo "Setting up $(PEERS), once ..."
	@$(PYTHON) -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/constraints.txt -e '.[contribute,bench]'
	@touch $@
