# Everything a developer does, on a machine with Python 3.11+, git and make alone.
# `make help` says what there is. A second run is instant: stamps in .venv remember what was installed from which lock.

VENV   ?= .venv
BIN    := $(VENV)/bin
# The first Python that is new enough; `make PYTHON=python3.12 …` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
# For example: make test PYTEST_ARGS='-x -k merkle'
PYTEST_ARGS ?=
JOBS   ?= auto

SOURCES := collector correlator audit_api dashboards alerting deploy tests $(wildcard bench drills examples .ci)
LOCKED_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
COMPILE_ALONE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --strip-extras --custom-compile-command "make lock"
COMPILE = $(COMPILE_ALONE) pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help run dev test test-all test-long test-clients matrix test-go test-crash test-objects test-minio test-opensearch test-prometheus test-prometheus3 test-alertmanager boards test-browser test-kafka test-rabbitmq test-pulsar test-redis test-keycloak test-oldest check fix bench drills audit lock upgrade wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Tallystick needs Python 3.11 or newer: none found. Try: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# What runs, and the demo's senders. The build backend is pinned too, hence no build isolation.
$(VENV)/.run: requirements/demo.lock pyproject.toml | $(BIN)/python
	@echo "installing from requirements/demo.lock"
	@$(LOCKED_INSTALL) -r requirements/demo.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.run
	@echo "installing from requirements/dev.lock"
	@$(LOCKED_INSTALL) -r requirements/dev.lock
	@touch $@

$(VENV)/.bench: requirements/bench.lock $(VENV)/.dev
	@echo "installing from requirements/bench.lock"
	@$(LOCKED_INSTALL) -r requirements/bench.lock
	@touch $@

run: $(VENV)/.run ## the demo: five services, their sidecars, and a verified trail
	@if [ -f examples/payments/run.py ]; then exec $(BIN)/python examples/payments/run.py; else exec $(BIN)/tally --help; fi

dev: $(VENV)/.dev ## everything to work on Tallystick, in .venv

test: $(VENV)/.dev ## the fast tests: everything embedded, no server, no network
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

test-all: $(VENV)/.dev ## every test, the marked ones too (needs node, npm, Go, Java 21, Maven, Prometheus, Alertmanager, rabbitmq-server, redis-server and chromium)
	$(BIN)/python -m pytest -m '' $(PYTEST_ARGS)

# Not in CI, which has to be done within 25 minutes.
test-long: $(VENV)/.dev ## what takes a minute and more each: faults and who is told, OpenSearch refusing, full and losing nodes, a whole data set again (needs Java 21, Maven, prometheus, promtool, alertmanager and amtool)
	$(BIN)/python -m pytest -m long $(PYTEST_ARGS)

test-clients: $(VENV)/.dev ## unmodified senders, each against a collector that is killed (needs node, npm, Go, Java 17, Maven, rsyslog, logrotate and rabbitmq-server)
	$(BIN)/python -m pytest -m clients $(PYTEST_ARGS)

# Not in CI: each sender is built or fetched once, and sends a hundred thousand events.
matrix: $(VENV)/.dev ## the same with 100,000 events each, three kills and OpenSearch away for a minute (an hour; MATRIX_ARGS='--senders otel-go kafka')
	$(BIN)/python -m drills matrix $(MATRIX_ARGS)
	$(BIN)/python -m pytest -m matrix -s $(PYTEST_ARGS)

test-go: $(VENV)/.dev ## our log, read by golang.org/x/mod/sumdb (needs Go)
	$(BIN)/python -m pytest -m gotest $(PYTEST_ARGS)

test-crash: $(VENV)/.dev ## SIGKILL at random instants
	$(BIN)/python -m pytest -m crash $(PYTEST_ARGS)

test-objects: $(VENV)/.dev ## the log on a real S3 server in a process of its own (moto, from PyPI)
	$(BIN)/python -m pytest -m objectstore $(PYTEST_ARGS)

# Not in CI: MinIO is built from source once, six minutes of a core, into a cache outside the tree.
test-minio: $(VENV)/.dev ## the same on a MinIO, and several writers at once (needs Go)
	TALLY_S3_SERVER=minio $(BIN)/python -m pytest -m objectstore --timeout 1200 $(PYTEST_ARGS)

test-opensearch: $(VENV)/.dev ## store and index on a real OpenSearch, which is fetched once (needs Java 21 and Maven)
	$(BIN)/python -m pytest -m opensearch $(PYTEST_ARGS)

test-prometheus: $(VENV)/.dev ## a real Prometheus scrapes every process (needs prometheus and promtool)
	$(BIN)/python -m pytest -m prometheus $(PYTEST_ARGS)

test-browser: $(VENV)/.dev ## the pages in a real Chromium (needs chromium, node and npm)
	$(BIN)/python -m pytest -m browser $(PYTEST_ARGS)

test-alertmanager: $(VENV)/.dev ## from a fault to a webhook (needs prometheus, alertmanager and amtool)
	$(BIN)/python -m pytest -m alertmanager $(PYTEST_ARGS)

boards: $(VENV)/.dev ## docs/dashboards/*.png: each board, drawn from minutes of traffic (needs prometheus)
	TALLY_DRAW=docs/dashboards $(BIN)/python -m pytest -m prometheus --timeout 900 tests/system/test_boards.py

# Not in CI: Prometheus 3 is built from source once, four minutes of a core, into a cache outside the tree.
test-prometheus3: $(VENV)/.dev ## the same with a Prometheus 3: remote-write 2.0 and OTLP (needs Go, and Debian's promtool)
	TALLY_PROMETHEUS=3 $(BIN)/python -m pytest -m prometheus --timeout 1200 $(PYTEST_ARGS)

test-kafka: $(VENV)/.dev ## the ways in from Kafka and out to it, on a real one, which is fetched once (needs Java 17 and Maven)
	$(BIN)/python -m pytest -m kafka $(PYTEST_ARGS)

test-rabbitmq: $(VENV)/.dev ## the way in from RabbitMQ, on a real one (needs rabbitmq-server)
	$(BIN)/python -m pytest -m rabbitmq $(PYTEST_ARGS)

test-pulsar: $(VENV)/.dev ## the way in from Pulsar, on a real one, which is fetched once (needs Java 17 and Maven)
	$(BIN)/python -m pytest -m pulsar $(PYTEST_ARGS)

test-redis: $(VENV)/.dev ## limits that several API processes count together, in a real Redis (needs redis-server)
	$(BIN)/python -m pytest -m redis $(PYTEST_ARGS)

test-keycloak: $(VENV)/.dev ## identities from a real Keycloak, which is fetched once (needs Java 17 and Maven)
	$(BIN)/python -m pytest -m keycloak $(PYTEST_ARGS)

# Lower bounds are promises too. Not in CI: what the index serves for the rest changes from day to day.
test-oldest: $(VENV)/.dev ## the fast tests against the oldest versions that pyproject.toml allows
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --all-extras --group dev \
		--requirement pyproject.toml
	.venv-oldest/bin/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

check: $(VENV)/.dev ## format, lint, types, architecture, docs
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy $(filter-out .ci,$(SOURCES))
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/test_docs.py

fix: $(VENV)/.dev ## what ruff can mend by itself
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/.bench ## speed and size, each beside its floor in the same run (minutes; not in CI)
	$(BIN)/python -m bench $(BENCH_ARGS)

drills: $(VENV)/.dev ## tampering, 200 SIGKILLs, faults and who is told, OpenSearch away, refusing and full (an hour; DRILL_ARGS='sigkill --kills 20', 'opensearch')
	$(BIN)/python -m drills $(DRILL_ARGS)

audit: $(VENV)/.dev ## known vulnerabilities in what the lock files name (asks an advisory service)
	$(BIN)/python .ci/audit.py

# dev.lock is the largest; the others take their versions from it, so that one venv holds them all.
lock: $(VENV)/.dev ## lock files again after a change in pyproject.toml
	$(COMPILE) $(LOCK_ARGS) --all-extras --group dev --output-file requirements/dev.lock
	$(COMPILE) --constraint requirements/dev.lock --group build --group demo --output-file requirements/demo.lock
	$(COMPILE) --constraint requirements/dev.lock --output-file requirements/run.lock
	$(COMPILE_ALONE) $(LOCK_ARGS) --constraint requirements/dev.lock --group bench --output-file requirements/bench.lock

upgrade: ## lock files again, each package at its newest allowed version
	$(MAKE) lock LOCK_ARGS=--upgrade

wheel: $(VENV)/.dev ## the wheel, in dist/
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

clean: ## remove what builds and tests have left (never tally-data: it is a record)
	rm -rf $(VENV) .venv-oldest build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
