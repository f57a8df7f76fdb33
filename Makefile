# Everything a checkout needs, from a machine with python3 (and its venv module), make and git; Go where the
# tests are to drive kubectl and helm. Each target is idempotent and quiet when nothing has to be done.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The first interpreter that is recent enough and can make environments; `make PYTHON=... ` takes another.
PYTHON_OK := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do \
	p=$$(command -v $$p) && $$p -c '$(PYTHON_OK)' >/dev/null 2>&1 && { echo $$p; break; }; done)

VENV ?= .venv
BIN := $(VENV)/bin
CACHE := .cache
GO := $(shell command -v go 2>/dev/null)

KUBERNETES := $(shell sed -n 's/^KUBERNETES = "\(.*\)"/\1/p' clusterling/version.py)
HELM := $(shell sed -n 's/^\thelm.sh\/helm\/v4 v//p' tests/clients/go.mod)
KUBECTL_BIN := $(CACHE)/clients/kubectl-$(KUBERNETES)/kubectl
HELM_BIN := $(CACHE)/clients/helm-$(HELM)/helm
OPERATOR_BIN := $(CACHE)/clients/operator/operator
LOADGEN_BIN := $(CACHE)/loadgen/loadgen
KINE_BIN := $(CACHE)/kine/kine
KINE_LOAD_BIN := $(CACHE)/kine/load
# Which etcd the tests run on: 3.6 or 3.5.
ETCD ?= 3.6
ETCD_MODULE := tests/etcd/$(if $(filter 3.5,$(ETCD)),v3.5/)
ETCD_VERSION := $(shell sed -n 's/.*go.etcd.io\/etcd\/server\/v3 v\([0-9.]*\).*/\1/p' $(ETCD_MODULE)go.mod)
ETCD_BIN := $(CACHE)/etcd/$(ETCD_VERSION)/etcd

export GOFLAGS := -trimpath -buildvcs=false
export GOWORK := off
PYTEST ?= $(BIN)/python -m pytest
ARGS ?=
SCALE ?= 1

.PHONY: help run test fuzz faults compare conformance client-suites deploy-tools chart config-docs dashboards prometheus check format bench bench-stores bench-million bench-clusters bench-metrics bench-tracing bench-neighbours clients old-clients etcd env dev-env data explain-data lock clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

# ---- environments: one .venv, filled from locks that name a hash for every file ----

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no python3 >= 3.11 with venv and ensurepip; name one with PYTHON=" >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.txt pyproject.toml | $(BIN)/python
	@echo "installing clusterling into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo "installing what tests and checks need into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

env: $(VENV)/.run ## The environment that serves

dev-env: $(VENV)/.dev ## The environment that tests and checks

# ---- clients: kubectl and helm from their Go modules, pinned in tests/clients/go.sum ----

VERSION_PKG := k8s.io/component-base/version
KUBE_LDFLAGS := -s -w -X $(VERSION_PKG).gitVersion=v$(KUBERNETES) -X $(VERSION_PKG).gitMajor=$(word 1,$(subst ., ,$(KUBERNETES))) \
	-X $(VERSION_PKG).gitMinor=$(word 2,$(subst ., ,$(KUBERNETES))) -X k8s.io/client-go/pkg/version.gitVersion=v$(KUBERNETES)
HELM_LDFLAGS := -s -w -X helm.sh/helm/v4/internal/version.version=v$(HELM)
CLIENT_SOURCES := tests/clients/go.mod tests/clients/go.sum tests/clients/cmd/kubectl/main.go

$(KUBECTL_BIN): $(CLIENT_SOURCES)
	@echo "building kubectl v$(KUBERNETES) (minutes the first time)"
	@mkdir -p $(@D)
	@cd tests/clients && $(GO) build -ldflags '$(KUBE_LDFLAGS)' -o $(CURDIR)/$@ ./cmd/kubectl
	@touch $@

$(HELM_BIN): $(CLIENT_SOURCES)
	@echo "building helm v$(HELM) (minutes the first time)"
	@mkdir -p $(@D)
	@cd tests/clients && $(GO) build -ldflags '$(HELM_LDFLAGS)' -o $(CURDIR)/$@ helm.sh/helm/v4/cmd/helm
	@touch $@

$(OPERATOR_BIN): $(wildcard tests/clients/cmd/operator/*.go) tests/clients/go.mod tests/clients/go.sum
	@echo "building the operator of the tests"
	@mkdir -p $(@D)
	@cd tests/clients && $(GO) build -ldflags '-s -w' -o $(CURDIR)/$@ ./cmd/operator
	@touch $@

# Older ones that people still have, each pinned in a module file of its own.
OLD_KUBECTLS := $(patsubst tests/clients/kubectl-%.mod,$(CACHE)/clients/kubectl-%/kubectl,$(wildcard tests/clients/kubectl-*.mod))

$(OLD_KUBECTLS): $(CACHE)/clients/kubectl-%/kubectl: tests/clients/kubectl-%.mod tests/clients/kubectl-%.sum tests/clients/cmd/kubectl/main.go
	@echo "building kubectl v$* (minutes the first time)"
	@mkdir -p $(@D)
	@cd tests/clients && CGO_ENABLED=0 $(GO) build -modfile=kubectl-$*.mod \
		-ldflags '-s -w -X $(VERSION_PKG).gitVersion=v$*.0 -X k8s.io/client-go/pkg/version.gitVersion=v$*.0' -o $(CURDIR)/$@ ./cmd/kubectl
	@touch $@

ifdef GO
old-clients: $(OLD_KUBECTLS) ## Older kubectls for the tests, into .cache/clients
else
old-clients:
	@echo "make: Go is not installed, so older kubectls are not built; the tests that drive them skip"
endif

ifdef GO
clients: $(KUBECTL_BIN) $(HELM_BIN) $(OPERATOR_BIN) ## kubectl, helm and an operator for the tests, into .cache/clients
else
clients:
	@echo "make: Go is not installed, so kubectl, helm and the operator are not built; the tests that drive them skip"
endif

# ---- etcd, for the tests of the store in it, from its Go module ----

$(ETCD_BIN): $(ETCD_MODULE)go.mod $(ETCD_MODULE)go.sum
	@echo "building etcd v$(ETCD_VERSION) (minutes the first time)"
	@mkdir -p $(@D)
	@cd $(ETCD_MODULE) && for part in $$($(GO) list tool); do \
		name=$$(basename $${part%/v3}); [ $$name = server ] && name=etcd; \
		$(GO) build -ldflags '-s -w' -o $(CURDIR)/$(@D)/$$name $$part || exit 1; done
	@touch $@

ifdef GO
etcd: $(ETCD_BIN) ## etcd and its tools for the tests, into .cache/etcd (ETCD=3.5 for the older one)
else
etcd:
	@echo "make: Go is not installed, so etcd is not built; the tests of the store in it skip"
endif

# ---- what checks the chart, from Go modules, and what the image holds, from the index ----

DEPLOY_TOOLS := $(CACHE)/deploy/bin/kubeconform $(CACHE)/deploy/bin/helm-unittest
IMAGE_WHEELS := $(CACHE)/deploy/wheels
# By what the locks say and not by when they were written: a cache may be newer than a checkout, and older than its locks.
ALL_WHEELS := $(IMAGE_WHEELS)/.all-$(shell cat requirements/build.txt requirements/image.txt | cksum | tr ' ' '-')

$(DEPLOY_TOOLS) &: tests/deploy/go.mod tests/deploy/go.sum
	@echo "building kubeconform and helm-unittest (a minute the first time)"
	@mkdir -p $(CACHE)/deploy/bin
	@cd tests/deploy && $(GO) build -ldflags '-s -w' -o $(CURDIR)/$(CACHE)/deploy/bin/ tool
	@touch $(DEPLOY_TOOLS)

$(ALL_WHEELS): | $(VENV)/.dev
	@rm -rf $(@D)
	@$(BIN)/python -m pip download -q --disable-pip-version-check --require-hashes --only-binary :all: -d $(@D) \
		-r requirements/build.txt
	@$(BIN)/python -m pip download -q --disable-pip-version-check --require-hashes --only-binary :all: -d $(@D) \
		-r requirements/image.txt
	@touch $@

deploy-tools: $(if $(GO),$(DEPLOY_TOOLS)) $(ALL_WHEELS) ## What the tests of the chart and the image need, into .cache/deploy

chart: $(VENV)/.dev ## The chart's schema and reference, from its values.yaml
	@$(BIN)/python -m tools.chart_docs

config-docs: $(VENV)/.dev ## The reference of settings, from the flags of the command line
	@$(BIN)/python -m tools.config_docs

dashboards: $(VENV)/.dev ## Grafana dashboards, alerts, runbooks and the reference of metrics, from code
	@$(BIN)/python -m tools.dashboards

# ---- Prometheus, for the tests of metrics: Debian's package, unpacked where nothing is installed ----

PROMETHEUS_DIR := $(CACHE)/prometheus

prometheus: ## Prometheus and promtool for the tests, into .cache/prometheus, where apt has them
	@test -x $(PROMETHEUS_DIR)/usr/bin/promtool || { mkdir -p $(PROMETHEUS_DIR) && cd $(PROMETHEUS_DIR) && \
		apt-get download -q prometheus >/dev/null 2>&1 && dpkg -x prometheus_*.deb . && rm prometheus_*.deb; } || \
		echo "make: apt has no Prometheus here, so the tests that need one skip"

# ---- the product ----

KUBECTL_FOUND := $(shell command -v kubectl 2>/dev/null)
ifeq ($(KUBECTL_FOUND),)
run: $(if $(GO),$(KUBECTL_BIN))
endif
run: $(VENV)/.run ## A server on 127.0.0.1:6443 with a demo cluster, in the foreground (LISTEN=)
	@KUBECTL_BUILT=$(KUBECTL_BIN) exec $(BIN)/python tools/run.py $(ARGS)

# ---- checks ----

test: $(VENV)/.dev clients etcd deploy-tools prometheus ## All tests (ARGS= goes to pytest)
	@CLUSTERLING_ETCD=$(CURDIR)/$(ETCD_BIN) $(PYTEST) $(ARGS)

ROUNDS ?= 100
STORE ?= both
SEED ?=

faults: $(VENV)/.dev etcd ## Three replicas over real stores under faults (ROUNDS=, STORE=postgres|etcd|both, SEED=)
	@CLUSTERLING_ETCD=$(CURDIR)/$(ETCD_BIN) $(BIN)/python -m tests.faults --rounds $(ROUNDS) --store $(STORE) \
		$(if $(SEED),--seed $(SEED)) $(ARGS)

PROCS ?= 4

compare: $(VENV)/.dev clients ## Beside a real kube-apiserver, where one is built: discovery, OpenAPI, kubectl (ARGS=SECTION)
	@$(BIN)/python -m tests.conformance.compare --kubectl $(KUBECTL_BIN) $(ARGS)

conformance: $(VENV)/.dev ## Kubernetes' own e2e suite, where it is built, against a cluster with all packs (PROCS=)
	@$(BIN)/python -m tests.conformance.suite --procs $(PROCS) $(ARGS)

SUITES ?=

client-suites: $(VENV)/.dev clients ## The client libraries' own tests, and programs with kube-rs and fabric8 (SUITES=)
	@$(BIN)/python -m tests.clients.suites --cache $(CACHE)/client-suites --kubectl $(KUBECTL_BIN) $(ARGS) $(SUITES)

DAYS ?= 1

ifdef GO
operator-day: $(VENV)/.dev $(OPERATOR_BIN) ## An operator written with client-go lives through days of faults (DAYS=, SEED=)
	@$(BIN)/python -m tests.clients.day --operator $(OPERATOR_BIN) --days $(DAYS) $(if $(SEED),--seed $(SEED)) $(ARGS)
else
operator-day:
	@echo "make: the operator is written in Go, and Go is not installed" >&2; exit 1
endif

# ---- fuzzing, in an environment of its own: atheris has wheels for fewer Pythons than the rest ----

FUZZ_ENV := $(CACHE)/fuzz/env
TIME ?= 60
TARGETS ?=

$(FUZZ_ENV)/.made: requirements/run.txt requirements/fuzz.txt | $(BIN)/python
	@echo "installing what fuzzing needs into $(FUZZ_ENV)"
	@$(BIN)/python -m venv $(FUZZ_ENV)
	@$(FUZZ_ENV)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(FUZZ_ENV)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	@touch $@

fuzz: $(FUZZ_ENV)/.made ## Hostile input for each target, found by coverage (TIME= seconds each, TARGETS=)
	@nice -n 19 $(FUZZ_ENV)/bin/python -m tests.fuzz --time $(TIME) $(ARGS) $(TARGETS)

check: $(VENV)/.dev ## Lint, format, types, layers, dependencies
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry .

format: $(VENV)/.dev ## Formats the sources and repairs what lint can repair
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format .

$(LOADGEN_BIN): $(wildcard benchmarks/loadgen/*.go) benchmarks/loadgen/go.mod
	@echo "building the load generator"
	@mkdir -p $(@D)
	@cd benchmarks/loadgen && $(GO) build -o $(CURDIR)/$@ .
	@touch $@

$(KINE_BIN): benchmarks/kine/go.mod benchmarks/kine/go.sum
	@echo "building kine (minutes the first time)"
	@mkdir -p $(@D)
	@cd benchmarks/kine && CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $(CURDIR)/$@ github.com/k3s-io/kine
	@touch $@

$(KINE_LOAD_BIN): benchmarks/kine/main.go benchmarks/kine/go.mod benchmarks/kine/go.sum
	@mkdir -p $(@D)
	@cd benchmarks/kine && CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $(CURDIR)/$@ .
	@touch $@

bench-tracing: $(VENV)/.dev ## What traces cost a GET and a CREATE: none, none recorded, all recorded
	@$(BIN)/python -m benchmarks.tracing $(ARGS)

ifdef GO
bench: $(VENV)/.run $(LOADGEN_BIN) ## Speed and size beside the targets, and beside kube-apiserver where it is built (SCALE=)
	@$(BIN)/python -m benchmarks --loadgen $(LOADGEN_BIN) --scale $(SCALE) $(ARGS)

bench-stores: $(VENV)/.dev $(LOADGEN_BIN) $(KINE_BIN) $(KINE_LOAD_BIN) etcd ## The service on Postgres and etcd, one replica and three, beside kube-apiserver and kine
	@$(BIN)/python -m benchmarks.stores --loadgen $(LOADGEN_BIN) --kine $(KINE_BIN) --kine-load $(KINE_LOAD_BIN) --scale $(SCALE) $(ARGS)

bench-million: $(VENV)/.dev $(LOADGEN_BIN) ## A million objects in 10,000 clusters on Postgres: the start and the size of a replica
	@$(BIN)/python -m benchmarks.million --loadgen $(LOADGEN_BIN) --scale $(SCALE) $(ARGS)

bench-clusters: $(VENV)/.dev $(LOADGEN_BIN) ## A hundred thousand logical clusters in one process: made, listed, watched, deleted (N=, ARGS='--store etcd')
	@$(BIN)/python -m benchmarks.clusters --loadgen $(LOADGEN_BIN) $(if $(N),--clusters $(N)) $(ARGS)

bench-metrics: $(VENV)/.run $(LOADGEN_BIN) ## What metrics cost: a server that counts beside one that does not
	@$(BIN)/python -m benchmarks.metrics --loadgen $(LOADGEN_BIN) --scale $(SCALE) $(ARGS)

bench-neighbours: $(VENV)/.run $(LOADGEN_BIN) ## What a tenant notices of another that does all it may at once
	@$(BIN)/python -m benchmarks.neighbours --loadgen $(LOADGEN_BIN) $(ARGS)
else
bench bench-stores bench-million bench-clusters bench-metrics bench-neighbours:
	@echo "make: the load generator is written in Go, and Go is not installed" >&2; exit 1
endif

# ---- generated files ----

data: $(VENV)/.dev ## Compiles clusterling/packs/data from the pinned Kubernetes modules
	@$(BIN)/python -m tools.compile_data

explain-data: $(VENV)/.dev ## The field descriptions that `kubectl explain` shows for built-in kinds
	@$(BIN)/python -m tools.compile_data --descriptions

PIP_COMPILE := env -u PIP_FIND_LINKS CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile -q --generate-hashes --no-emit-index-url \
	--no-emit-trusted-host --no-emit-find-links --allow-unsafe --strip-extras --no-annotate

lock: $(VENV)/.dev ## Renews requirements/*.txt from pyproject.toml and *.in, with Python 3.11 (ARGS=--upgrade)
	@$(PIP_COMPILE) $(ARGS) -o requirements/run.txt pyproject.toml requirements/build.in
	@$(PIP_COMPILE) $(ARGS) -o requirements/dev.txt requirements/dev.in
	@$(PIP_COMPILE) $(ARGS) -o requirements/build.txt -c requirements/run.txt requirements/build.in
	@$(PIP_COMPILE) $(ARGS) -o requirements/image.txt -c requirements/dev.txt --extra postgres --extra etcd --extra tracing pyproject.toml
	@$(PIP_COMPILE) $(ARGS) -o requirements/client-suites.txt requirements/client-suites.in
	@$(PIP_COMPILE) $(ARGS) -o requirements/fuzz.txt requirements/fuzz.in

clean: ## Removes what was built; ./.clusterling, where `make run` keeps its data, stays
	@rm -rf $(VENV) $(CACHE) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache benchmarks/out
