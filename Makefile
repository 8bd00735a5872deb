# Everything from a fresh clone. Each target makes .venv by itself when that is missing or out of date.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: bench-steady bench-shelf help setup demo demo-cinema test lint bench bench-learning bench-ope bench-experiments bench-online bench-stream proto protos-archive images chart cluster-test clients-test audit lock clean demo-news bench-retrieval bench-news

BIN := .venv/bin
STAMP := .venv/.up-to-date
PROTOS := $(shell find protos -name '*.proto' 2>/dev/null)
ARGS ?=

help: ## Show this
	@echo 'banditmesh. Start with: make demo'
	@echo
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 23
	@echo
	@echo 'ARGS are passed on: make test ARGS="tests/unit -k linucb", make demo ARGS=--help'

setup: $(STAMP) ## Make .venv from requirements.lock, with the contracts generated (seconds when nothing changed)

$(STAMP): pyproject.toml requirements.lock hatch_build.py tools/bootstrap.sh $(PROTOS)
	@tools/bootstrap.sh
	@touch $@

demo: $(STAMP) ## Bring the whole mesh up on this machine and let it learn from real ratings
	@$(BIN)/banditmesh demo $(ARGS)

demo-cinema: $(STAMP) ## A cinema's shelf on real ratings: ranked lists by a blend of popularity and taste, rules, cache
	@$(BIN)/banditmesh demo-cinema $(ARGS)
demo-news: $(STAMP) ## The mesh as a news feed: what readers near you click now, against what is popular
	@$(BIN)/banditmesh demo-news $(ARGS)

test: $(STAMP) ## Unit, contract, integration and end-to-end tests, on real servers, in five processes
	@$(BIN)/pytest -n 5 --dist loadfile $(ARGS)

lint: $(STAMP) ## Style, types, architecture, contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict banditmesh services
	$(BIN)/lint-imports
	$(BIN)/buf lint
	@tools/contracts-unbroken.sh

bench: $(STAMP) ## Benchmarks; ARGS=--json prints one JSON line a figure
	@$(BIN)/python -m benchmarks $(ARGS)

bench-steady: $(STAMP) ## Whether memory grows under steady traffic, 30 minutes: ARGS="--minutes 10"
	@nice -n 5 $(BIN)/python -m benchmarks.steady $(ARGS)

bench-stream: $(STAMP) ## How fast events, joins and learning are, a core a service: benchmarks/stream.md
	@$(BIN)/python -m benchmarks.stream --report benchmarks/stream.md $(ARGS)

bench-retrieval: $(STAMP) ## How fast density retrieves, how true its sums are: benchmarks/retrieval.md
	@$(BIN)/python -m benchmarks.retrieval --report benchmarks/retrieval.md $(ARGS)

bench-news: $(STAMP) ## Density against popularity, likeness and item-kNN on simulated days: benchmarks/news.md
	@$(BIN)/python -m benchmarks.news --report benchmarks/news.md $(ARGS)

BENCH := .benchmarks/venv
BENCH_STAMP := $(BENCH)/.up-to-date

bench-learning: $(STAMP) $(BENCH_STAMP) ## How well and how fast it learns, beside its peers: benchmarks/learning.md
	@PYTHONPATH=. $(BENCH)/bin/python -m benchmarks.learning --report benchmarks/learning.md $(ARGS)

bench-ope: $(STAMP) ## Do off-policy intervals hold the truth, in simulations: benchmarks/ope.md
	@$(BIN)/python -m benchmarks.ope --report benchmarks/ope.md $(ARGS)

bench-experiments: $(STAMP) ## Do experiments mislead whoever looks all the time: benchmarks/experiments.md
	@$(BIN)/python -m benchmarks.experiments --report benchmarks/experiments.md $(ARGS)

bench-online: $(STAMP) $(BENCH_STAMP) ## What policies earn while they learn, beside Vowpal Wabbit: benchmarks/online.md
	@PYTHONPATH=. $(BENCH)/bin/python -m benchmarks.online --report benchmarks/online.md $(ARGS)

bench-shelf: $(STAMP) ## Taste beside implicit, the blend by feedback, the cache's CPU: benchmarks/shelf.md
	@$(BIN)/python -m benchmarks.shelf --report benchmarks/shelf.md $(ARGS)

$(BENCH_STAMP): requirements-bench.lock
	@$(BIN)/python -m venv --clear $(BENCH)
	@$(BENCH)/bin/python -m pip --disable-pip-version-check install -q --require-hashes --no-deps -r requirements-bench.lock
	@touch $@

images: $(STAMP) ## Build the images of deploy/docker; ARGS="--builder buildah engine" takes another builder, one image
	@PYTHONPATH=. $(BIN)/python deploy/docker/build.py $(ARGS)

CLUSTER ?= cluster
cluster-test: $(STAMP) ## The chart on a real Kubernetes under traffic; CLUSTER= names the tool (up, build, kubeconfig)
	@CLUSTER="$(CLUSTER)" BIN="$(BIN)" tests/cluster/run.sh $(ARGS)

clients-test: $(STAMP) ## Compile and run the Java and Kotlin clients of docs/clients.md against a mesh (Maven; minutes the first time)
	@$(BIN)/pytest -m jvm tests/deploy/test_running_mesh.py $(ARGS)

audit: $(STAMP) ## Known vulnerabilities of every locked package; says so where the advisory data cannot be had
	@tools/audit.sh

chart: $(STAMP) ## Write the chart's README.md, values.schema.json and dashboards again
	@$(BIN)/python tools/chart_reference.py
	@$(BIN)/python tools/dashboards.py

protos-archive: $(STAMP) ## dist/banditmesh-protos-VERSION.tar.gz, for teams that generate clients in other languages
	@$(BIN)/python tools/protos_archive.py dist

proto: $(STAMP) ## Generate the Python contracts again
	@$(BIN)/python hatch_build.py

lock: $(STAMP) ## Resolve pyproject.toml into requirements.lock again
	@$(BIN)/uv pip compile -q pyproject.toml --extra local --extra dev --generate-hashes --no-annotate --no-header \
		--universal --python-version 3.11 -o requirements.lock
	@tools/lock_images.sh
	@# obp asks for torch (2 GB), which its estimators do not use, and Mab2Rec's metrics for cvxpy, which it does without.
	@$(BIN)/uv pip compile -q pyproject.toml --extra bench --generate-hashes --no-annotate --no-header \
		--override <(printf "%s; python_version < '3'\n" torch cvxpy) --universal --python-version 3.11 -o requirements-bench.lock

clean: ## Remove what was made here (not the cache of downloaded jars)
	@rm -rf .venv .benchmarks banditmesh/contracts .banditmesh .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
