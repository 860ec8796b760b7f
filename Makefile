# `make help` lists what there is: each target that has a description behind two hashes.
.DEFAULT_GOAL := help
.PHONY: help deps demo servers check test test-full plants torture torture-plants bench snapshot-bench latency restarts instructions fuzz deny clean

CARGO ?= cargo
# How long each fuzz target runs.
FUZZ_SECONDS ?= 60
# cargo-fuzz asks for a nightly compiler; this lets the stable one do.
FUZZ := RUSTC_BOOTSTRAP=1 $(CARGO) fuzz

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## look for what is needed to build and test, and install what is missing
	@scripts/deps.sh

demo: deps ## a small shop, the daemon and what arrives; DEMO_SECONDS=20 or Ctrl-C ends it
	@$(CARGO) build --quiet --release --locked --package waltide --package waltide-demo
	@$${CARGO_TARGET_DIR:-target}/release/waltide-demo

servers: deps ## real Postgres, Kafka and registry with their addresses; Ctrl-C ends them
	$(CARGO) run --quiet --locked --package waltide-stack -- up

check: deps ## formatting, lints, documentation, and whether known bugs can still be planted
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked
	scripts/plants.sh --check

# Tests wait for servers a third of the time, so a machine of two cores takes a third one meanwhile.
CORES := $(shell getconf _NPROCESSORS_ONLN)
test: export RUST_TEST_THREADS ?= $(shell echo $$(($(CORES) > 2 ? $(CORES) : 3)))

test: check ## check, then all tests, against real servers
	$(CARGO) test --workspace --locked

test-full: check ## all tests with the documented figures; writes docs/reports/test-full.md
	scripts/test-full.sh

plants: deps ## plant known bugs one by one, and see the test that must catch each fail
	@scripts/plants.sh

torture: deps ## everything goes wrong: ARGS="--cycles 100 --mode exactly_once --version 16 --seed 7"
	@$(CARGO) build --quiet --locked --workspace --bins
	@$${CARGO_TARGET_DIR:-target}/debug/waltide-torture $(ARGS)

torture-plants: deps ## plant known bugs one by one, and see torture catch each within five minutes
	@scripts/torture.sh plants

bench: deps ## rows a second, CPU and memory from Postgres to Kafka, beside pg_recvlogical
	$(CARGO) bench --locked --bench end_to_end

snapshot-bench: deps ## reading a table into Kafka, beside COPY of it through psql
	$(CARGO) bench --locked --bench snapshot

latency: deps ## from a commit to a consumer at 500 to 50,000 rows a second, in both delivery modes
	$(CARGO) bench --locked --bench latency

restarts: deps ## how long a release build takes from its start to streaming
	@scripts/restarts.sh

instructions: deps ## instructions a row takes in decoder and encoder, against the committed figures
	@scripts/instructions.sh

fuzz: deps ## run each fuzz target for FUZZ_SECONDS (60)
	@command -v cargo-fuzz >/dev/null || { echo "fuzz: cargo install --locked cargo-fuzz" >&2; exit 1; }
	targets=$$($(FUZZ) list) && for target in $$targets; do \
		$(FUZZ) run "$$target" -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

deny: ## licences and sources of all dependencies, and with a network known vulnerabilities
	@command -v cargo-deny >/dev/null || { echo "deny: cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny --locked check --hide-inclusion-graph bans licenses sources
	$(CARGO) deny --locked check --hide-inclusion-graph advisories

clean: ## remove what was built; the servers' cache stays
	$(CARGO) clean
