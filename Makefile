# The project's commands. `make` alone lists them.

# dev builds fastest, which is what a first look wants; `make run PROFILE=release` for speed.
PROFILE ?= dev
ROUTES ?= routes.yaml
DATA_DIR ?= data

# How much `make soak` does: about an hour.
KILLS ?= 400
REPUBLISH_KILLS ?= 100
CRASH_CASES ?= 500
HANG_SECONDS ?= 240
SICK_ROUNDS ?= 4
SICK_SECONDS ?= 60
RELOADS ?= 1000
AGENTS ?= 10000
POLL_KILLS ?= 100

# How long each target of `make fuzz` runs.
FUZZ_SECONDS ?= 60

WAYPOST = $(or $(CARGO_TARGET_DIR),target)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/waypost

# A first look needs no more than this machine.
export WAYPOST_LISTEN ?= 127.0.0.1:8080

# Where Rust and Go usually are, for shells that were not told so.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin

.DEFAULT_GOAL := help
.PHONY: help run check test soak bench fuzz audit brokers

help: ## list these commands
	@awk -F': ## ' '/^[a-z]+: ## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

run: ## build and run waypost with routes.yaml (ARGS="..." adds flags; PROFILE=release)
	@scripts/install.sh build
	@scripts/env.sh
	cargo build --locked --profile $(PROFILE) --bin waypost
	@exec $(WAYPOST) run --routes $(ROUTES) --data-dir $(DATA_DIR) $(ARGS)

check: ## formatting, clippy and the tests that need nothing but this program; for every commit
	@scripts/install.sh build
	cargo fmt --check
	cargo clippy --locked --all-targets --bench load -- -D warnings
	cargo test --locked --lib

test: ## install what the tests need and run them all, against real brokers
	@scripts/install.sh test
	cargo fmt --check
	cargo clippy --locked --all-targets --bench load -- -D warnings
	cargo test --locked

soak: ## kill the daemon, lose power, make brokers sick, for an hour (KILLS=400 SICK_ROUNDS=4 ...)
	@scripts/install.sh test
	seed=$$(date +%s) && \
		WAYPOST_KILLS=$(KILLS) WAYPOST_KILL_SEED=$$seed \
		WAYPOST_REPUBLISH_KILLS=$(REPUBLISH_KILLS) \
		WAYPOST_CRASH_CASES=$(CRASH_CASES) WAYPOST_CRASH_SEED=$$seed \
		WAYPOST_HANG_SECONDS=$(HANG_SECONDS) \
		WAYPOST_SICK_ROUNDS=$(SICK_ROUNDS) WAYPOST_SICK_SECONDS=$(SICK_SECONDS) \
		WAYPOST_RELOADS=$(RELOADS) WAYPOST_RELOAD_STEP=1 \
		WAYPOST_AGENTS=$(AGENTS) WAYPOST_POLL_KILLS=$(POLL_KILLS) WAYPOST_POLL_SEED=$$seed \
		cargo test --locked --test main -- --nocapture kill_nine kill_republish journal_crash sick_ \
			reload::many reload::crash sonzai_poll_kill sonzai_poll_many

bench: ## what an event costs, beside a bare server and against real brokers (ARGS="--help" tells more)
	@scripts/install.sh test
	cargo bench --locked --bench load -- $(ARGS)

fuzz: ## run every fuzz target (FUZZ_SECONDS=60 each); wants nightly Rust
	@scripts/install.sh fuzz
	@scripts/fuzz.sh $(FUZZ_SECONDS)

audit: ## check the dependencies: licences, bans, sources
	@scripts/install.sh audit
	cargo deny --locked check bans licenses sources

brokers: ## start Kafka, RabbitMQ and NATS for work by hand, until Ctrl-C
	@scripts/install.sh test
	cargo run --locked --quiet --example brokers
