# Building, running and checking cLLM. `make help` lists the targets. Needs rustup's cargo, a C++ compiler, python3 and make.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup run bench test clients browser lint fmt

DEFAULT_MODEL := models/SmolLM2-135M-Instruct.Q4_1.gguf
# Another GGUF file to serve or to test the foreign clients with.
MODEL ?= $(DEFAULT_MODEL)
# More arguments for `cllm serve`.
ARGS ?=
# Not empty: a short benchmark. More arguments for scripts/bench.py, such as --no-peer.
QUICK ?=
BENCH_ARGS ?=

PYTHON ?= python3
SETUP := @$(PYTHON) scripts/setup.py
# The default model is served where nothing else names one: a file, a variable or a flag in ARGS.
SERVED := $(if $(filter file,$(origin MODEL)),--default-model,--model) "$(MODEL)"
MODEL_GOAL := $(if $(filter $(DEFAULT_MODEL),$(MODEL)),model)
TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO := cargo
# The same packages and features in every command: llama.cpp is then compiled once for lint, docs and tests.
ALL := --locked --workspace
NO_CPP := --locked --package cllm-actors --no-default-features

help: ## Lists the targets.
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
	@echo 'Variables: MODEL=path/to/model.gguf, ARGS="--port 9000" (both for make run), QUICK=1 and BENCH_ARGS (make bench)'

setup: ## Finds or gets cmake, libclang and the default model.
	$(SETUP) tools model

run: ## Builds a release and serves. MODEL=path and ARGS="--config my.yaml --port 9000" as you like.
	$(SETUP) tools $(MODEL_GOAL)
	$(CARGO) build --locked --release --bin cllm
	@$(TARGET)/release/cllm serve --hints $(SERVED) $(ARGS)

bench: ## Measures a release build against llama.cpp's server. About 20 minutes; QUICK=1: about 5.
	$(SETUP) tools $(MODEL_GOAL)
	$(CARGO) build --locked --release --bin cllm
	@$(PYTHON) scripts/bench.py $(TARGET)/release/cllm "$(MODEL)" $(if $(QUICK),--quick) $(BENCH_ARGS)

test: ## Runs all tests, those of the foreign clients and the browser included.
	$(SETUP) tools model clients browser
	$(CARGO) test $(ALL) --no-run
	@$(MAKE) --no-print-directory clients
	@$(MAKE) --no-print-directory browser
	$(CARGO) test $(NO_CPP)
	$(CARGO) test $(ALL) --doc
	$(CARGO) test $(ALL) --lib --bins --tests --examples
	@$(TARGET)/debug/examples/embed_isolated | grep "200 tokens, resumed 1" || { echo "examples/embed_isolated did not survive a kill"; exit 1; }
	@$(TARGET)/debug/examples/observe_restart | grep "restarted .*scheduler-0" || { echo "examples/observe_restart shows no restart"; exit 1; }

clients: ## Runs the foreign clients alone, against the binary that `make test` or `cargo build` left.
	$(SETUP) $(MODEL_GOAL) clients
	@.tools/venv/bin/python tests/clients/run.py --server $(TARGET)/debug/cllm --model "$(MODEL)"

browser: ## Runs the browser test of the page at /ui alone, against the binary that `make test` or `cargo build` left.
	$(SETUP) browser
	@node tests/browser/run.mjs $(TARGET)/debug/cllm

lint: ## Checks format, lints, docs, dependencies and spelling.
	$(SETUP) tools $(if $(CI),lint)
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(ALL) --all-targets -- -D warnings
	$(CARGO) clippy $(NO_CPP) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(ALL) --no-deps
	@scripts/lint_extras.sh

fmt: ## Formats the Rust code.
	$(CARGO) fmt --all
