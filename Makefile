# Plimsoll: what a newcomer needs. `make help` lists it.

SHELL := /bin/bash
CARGO ?= cargo
# Compiled dependencies outlive a checkout here; set CARGO_TARGET_DIR to choose another place.
export CARGO_TARGET_DIR ?= $(CURDIR)/target

.DEFAULT_GOAL := help
.PHONY: help deps build demo demo-down test lint bench swap doc facts clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## Install what building and testing need (Debian; as root)
	@scripts/deps

build: deps ## Build the program: target/release/plim
	$(CARGO) build --release --package plim
	@mkdir -p target/release && { [ "$(CARGO_TARGET_DIR)/release/plim" -ef target/release/plim ] || cp "$(CARGO_TARGET_DIR)/release/plim" target/release/plim; }

demo: build ## Run a shop of seven services on a cluster here, place an order, show what it costs
	@scripts/demo

demo-down: ## End the demo and remove its state
	@scripts/demo down

lint: deps ## Check formatting and clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

test: lint ## Run all tests
	$(CARGO) test --workspace

bench: build ## Measure against peers; minutes, and Go the first time
	bench/api
	bench/pods
	bench/container_start

swap: build ## Swap upstream's components and other clients in, and ours into upstream's; long, and needs Go
	conformance/swap/run

doc: ## Build the documentation of all rooms
	$(CARGO) doc --workspace --no-deps

facts: ## Take the facts of the pinned Kubernetes version anew (needs Go; minutes)
	$(CARGO) xtask facts

clean: ## Remove what was built
	$(CARGO) clean
