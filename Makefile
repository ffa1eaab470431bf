# Plimsoll: what a newcomer needs. `make help` lists it.

SHELL := /bin/bash
CARGO ?= cargo
# Compiled dependencies outlive a checkout here; set CARGO_TARGET_DIR to choose another place.
export CARGO_TARGET_DIR ?= $(CURDIR)/target

.DEFAULT_GOAL := help
.PHONY: help deps build demo demo-down test fuzz lint bench conformance conformance-listed oracle swap doc facts clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## Install what building and testing need (Debian; as root)
	@scripts/deps

build: deps ## Build the program: target/release/plim
	$(CARGO) build --release --package plim
	@mkdir -p target/release && { [ "$(CARGO_TARGET_DIR)/release/plim" -ef target/release/plim ] || cmp -s "$(CARGO_TARGET_DIR)/release/plim" target/release/plim || cp --remove-destination "$(CARGO_TARGET_DIR)/release/plim" target/release/plim; }

demo: build ## Run a shop of seven services on a cluster here, place an order, show what it costs
	@scripts/demo

demo-down: ## End the demo and remove its state
	@scripts/demo down

lint: deps ## Check formatting and clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

test: lint ## Run all tests
	$(CARGO) test --workspace

fuzz: ## Fuzz every parser of outside input, SECONDS=600 each
	SECONDS_EACH=$(or $(SECONDS),600) fuzz/run

bench: build ## Measure against peers; minutes, and Go the first time
	bench/api
	bench/pods
	bench/container_start

conformance: build ## Run upstream's conformance suite on a cluster of three nodes (FOCUS=REGEX: a part); needs Go
	conformance/run $(if $(FOCUS),--focus '$(FOCUS)')

conformance-listed: deps ## Run those conformance tests that passed before and may run beside others, on a debug build; needs Go
	$(CARGO) test --workspace --no-run --quiet
	PLIM="$(CARGO_TARGET_DIR)/debug/plim" conformance/run --listed --parallel

oracle: deps ## Compare our answers with kube-apiserver's: SEED=7 COUNT=10000; needs Go, minutes the first time
	conformance/oracle/run --seed $(or $(SEED),7) --count $(or $(COUNT),10000) --minimise 20 --report docs/oracle.md

swap: build ## Swap upstream's components and other clients in, and ours into upstream's; long, and needs Go
	conformance/swap/run

doc: ## Build the documentation of all rooms
	$(CARGO) doc --workspace --no-deps

facts: ## Take the facts of the pinned Kubernetes version anew (needs Go; minutes)
	$(CARGO) xtask facts

clean: ## Remove what was built
	$(CARGO) clean
