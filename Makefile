# Frequently used commands. `make help` lists them.

CARGO ?= cargo
# The linter of the .proto files, which npx fetches on first use.
BUF := npx --yes @bufbuild/buf@1.75.0
TARGET := $(or $(CARGO_TARGET_DIR),target)
# The documentation's builder, which cargo installs on first use; without its server it builds faster.
MDBOOK_VERSION := 0.5.4
MDBOOK := $(TARGET)/mdbook-$(MDBOOK_VERSION)/bin/mdbook
# What `make release` builds, `make install` installs and `make deb` packs.
PACKAGES := shoal-cli shoal-tracker shoal-peer shoal-dht-node shoal-loadgen
DIST := $(TARGET)/$(if $(CARGO_BUILD_TARGET),$(CARGO_BUILD_TARGET)/)dist
PREFIX ?= /usr/local
CARGO_DEB_VERSION := 3.8.0
CARGO_DEB := $(TARGET)/cargo-deb-$(CARGO_DEB_VERSION)/bin/cargo-deb
# The linter of .github/workflows, which Go builds on first use.
ACTIONLINT := $(TARGET)/actionlint-1.7.12/actionlint
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# The smallest run that shows whether the lab works, in a few seconds.
SMALL_LAB := -n 3 --size 5MB --us 100mbit --ui 20mbit --di 200mbit --limit 60s

.DEFAULT_GOAL := help
.PHONY: help demo test soak chaos check fmt fmt-check clippy lint deny sim sim-ring bench bench-ring lab lab-check build clean
.PHONY: load images cluster-up cluster-scale cluster-status cluster-publish cluster-get cluster-logs cluster-down cluster-test observability-check
.PHONY: release install uninstall deb lint-workflows
.PHONY: chart-test kube-test fuzz hostile tools-check docs

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Swarm of 8 local peers that loses its tracker (FILE=..., ARGS='--us 200mbit --ui 20mbit')
	$(CARGO) build --profile demo --bin shoal --bin shoal-tracker --bin shoal-dht-node --bin shoal-demo
	@$(TARGET)/demo/shoal-demo $(if $(FILE),'$(FILE)') $(ARGS)

test: build ## All tests
	$(CARGO) test --workspace

soak: build ## Tests too long for `make check`: 3 minutes of churn, a ring scaled 20 times
	SHOAL_CHURN_SECONDS=180 SHOAL_SCALE_ROUNDS=20 \
		$(CARGO) test -p shoal-testkit --test ring --test ring_churn -- --nocapture

hostile: build ## Attacks by strangers on real processes, and the resources that each attack took
	$(CARGO) test -p shoal-testkit --test hostile_limits --test hostile_strangers --test hostile_words \
		--test hostile_together -- --nocapture --test-threads 1

tools-check: build ## Benchmarks, simulators, the demo and the fuzz targets, each as short as possible
	$(CARGO) bench --profile dev -p shoal-peer --bench transfer -- 8
	$(CARGO) bench --profile dev -p shoal-testkit --bench ring -- 0.1
	$(TARGET)/debug/shoal-sim -n 5 --size 2MB
	$(TARGET)/debug/shoal-sim ring --tables keys
	$(TARGET)/debug/shoal-demo --size 8MB --peers 3
	fuzz/run 1

chaos: build ## Ring and swarm under random faults and attacks (MINUTES=10, SEED=7; as root also partitions, full disks)
	@$(TARGET)/debug/shoal-chaos --minutes $(or $(MINUTES),1) $(if $(SEED),--seed $(SEED)) $(ARGS)

check: fmt-check clippy lint test ## All checks of CI: formatting, clippy, buf lint, all tests

fmt: ## Format the code
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

lint: ## buf lint of the .proto files (needs npx, installs nothing)
	@command -v npx > /dev/null || { echo 'make lint needs npx: apt-get install npm' >&2; exit 1; }
	$(BUF) lint

lint-workflows: $(ACTIONLINT) ## Lint .github/workflows (needs Go)
	@$(ACTIONLINT)

$(ACTIONLINT):
	@command -v go > /dev/null || { echo 'make lint-workflows needs Go: apt-get install golang-go' >&2; exit 1; }
	GOBIN='$(abspath $(@D))' go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

deny: ## Check licences, bans and sources of all dependencies (needs cargo-deny)
	@$(CARGO) deny --version > /dev/null 2>&1 || \
		{ echo 'make deny needs cargo-deny: cargo install --locked cargo-deny' >&2; exit 1; }
	$(CARGO) deny check licenses bans sources

sim: ## Simulated swarm (SEED=1, ARGS='-n 100 --us 100')
	$(CARGO) run --quiet --release -p shoal-testkit --bin shoal-sim -- --seed $(or $(SEED),1) $(ARGS)

sim-ring: ## Simulated rings, compared with the Chord paper (SEED=1, ARGS='--tables hops')
	$(CARGO) run --quiet --release -p shoal-testkit --bin shoal-sim -- ring --seed $(or $(SEED),1) $(ARGS)

fuzz: ## Fuzz every parser and state machine, SECONDS=60 each (needs a C++ compiler; TARGETS='manifest swarm')
	@command -v c++ > /dev/null || { echo 'make fuzz needs a C++ compiler: apt-get install g++' >&2; exit 1; }
	@fuzz/run '$(or $(SECONDS),60)' $(TARGETS)

bench: ## Benchmark of the data plane on this machine, compared with a plain copy over TCP
	$(CARGO) bench -p shoal-peer --bench transfer -- $(ARGS)

bench-ring: ## Calls per second of a ring of five nodes, compared with a plain echo service
	$(CARGO) build --release --bin shoal-dht-node
	$(CARGO) bench -p shoal-testkit --bench ring -- $(ARGS)

lab: ## Swarm on shaped links in network namespaces (root; ARGS='-n 30' or --table)
	$(CARGO) build --release --bin shoal --bin shoal-tracker --bin shoal-lab
	@$(SUDO) $(TARGET)/release/shoal-lab $(ARGS)

lab-check: build ## Test of the lab, with three peers (root)
	@$(SUDO) $(TARGET)/debug/shoal-lab $(SMALL_LAB)

release: ## Build the binaries that `make install` installs
	$(CARGO) build --profile dist $(addprefix --package ,$(PACKAGES))

install: ## Install them with manual pages, completions and systemd units (PREFIX=/usr/local, DESTDIR=)
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' deploy/install $(DIST)

uninstall: ## Remove what it installed, but no settings
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' deploy/install --remove

deb: release $(CARGO_DEB) ## Build a Debian package in target/debian
	@rm -rf $(DIST)/package
	@PREFIX=/usr DESTDIR='$(abspath $(DIST))/package' deploy/install $(DIST)
	@gzip -9n $(DIST)/package/usr/share/man/man1/*
	@$(CARGO_DEB) --package shoal-cli --profile dist --no-build $(addprefix --target ,$(CARGO_BUILD_TARGET))

$(CARGO_DEB):
	$(CARGO) install --locked --version $(CARGO_DEB_VERSION) --root $(TARGET)/cargo-deb-$(CARGO_DEB_VERSION) cargo-deb

images: ## Build the container images shoal/NAME:dev (IN_CONTAINER=1 compiles in a container)
	@deploy/images

cluster-up: ## Start a cluster in containers with Compose (PEERS=50, OBSERVABILITY=1)
	@deploy/cluster up

cluster-scale: ## Change its number of peers (PEERS=20)
	@deploy/cluster scale '$(PEERS)'

cluster-status: ## Show its containers, swarms, and the ring in order
	@deploy/cluster status

cluster-publish: ## Publish a file or directory through one of its peers (FILE=...)
	@deploy/cluster publish '$(FILE)'

cluster-get: ## Fetch a content from it (ID=..., TO=directory)
	@deploy/cluster get '$(ID)' '$(TO)'

load: ## Put load on its services (SCENARIO=announce|lookup|kv|swarm|mixed, ID=..., ARGS='--rate 1000')
	@ID='$(ID)' deploy/cluster load '$(SCENARIO)' $(ARGS)

cluster-logs: ## Follow its logs (SERVICES='peer tracker-1')
	@deploy/cluster logs $(SERVICES)

cluster-down: ## Stop it; volumes of ring nodes stay (VOLUMES=1 removes them)
	@deploy/cluster down

cluster-test: images ## End-to-end test of a Compose cluster (needs grpcurl)
	$(CARGO) build --bin shoal-cluster-test
	@$(TARGET)/debug/shoal-cluster-test $(ARGS)

chart-test: ## Test the Helm chart: lint, renders, API schemas (needs Python 3, and helm or Go to install it)
	@helm/tests/run $(ARGS)

kube-test: ## Test the chart on kubectl's current cluster (needs helm; images on its nodes; ARGS=--help)
	$(CARGO) build --bin shoal --bin shoal-kube-test
	@PATH="$$PATH:$(TARGET)/chart-test" $(TARGET)/debug/shoal-kube-test $(ARGS)

observability-check: ## Check the configuration and rules of Prometheus (needs promtool)
	@command -v promtool > /dev/null || { echo 'make observability-check needs promtool:' \
		'go install github.com/prometheus/prometheus/cmd/promtool@latest, or apt-get install prometheus' >&2; exit 1; }
	promtool check config deploy/observability/prometheus.yaml

docs: $(MDBOOK) ## Documentation as a book in target/book; fails on dead links (needs Python 3)
	@.ci/links
	@$(MDBOOK) build docs

$(MDBOOK):
	$(CARGO) install --debug --locked --version $(MDBOOK_VERSION) --no-default-features --features search \
		--root $(TARGET)/mdbook-$(MDBOOK_VERSION) mdbook

build:
	$(CARGO) build --workspace --bins

clean: ## Remove build outputs
	$(CARGO) clean
