# Whatever is typed often. `make help` tells what.

CARGO ?= cargo
# The linter of the .proto files, fetched by npx when it is first asked for.
BUF := npx --yes @bufbuild/buf@1.75.0
TARGET := $(or $(CARGO_TARGET_DIR),target)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# The least that a change of the lab's code can break, in a few seconds.
SMALL_LAB := -n 3 --size 5MB --us 100mbit --ui 20mbit --di 200mbit --limit 60s

.DEFAULT_GOAL := help
.PHONY: help demo test soak chaos check fmt fmt-check clippy lint deny sim sim-ring bench bench-ring lab lab-check build clean
.PHONY: load images cluster-up cluster-scale cluster-status cluster-publish cluster-get cluster-logs cluster-down cluster-test observability-check
.PHONY: chart-test kube-test fuzz hostile tools-check

help: ## List this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Swarm of 8 peers here that loses its tracker (FILE=..., ARGS='--us 200mbit --ui 20mbit')
	$(CARGO) build --release --bin shoal --bin shoal-tracker --bin shoal-dht-node --bin shoal-demo
	@$(TARGET)/release/shoal-demo $(if $(FILE),'$(FILE)') $(ARGS)

test: build ## All tests
	$(CARGO) test --workspace

soak: build ## What takes too long for every check: 3 minutes of churn, a ring scaled 20 times
	SHOAL_CHURN_SECONDS=180 SHOAL_SCALE_ROUNDS=20 \
		$(CARGO) test -p shoal-testkit --test ring --test ring_churn -- --nocapture

hostile: build ## Attacks of strangers on real processes, and what each took of them
	$(CARGO) test -p shoal-testkit --test hostile_limits --test hostile_strangers --test hostile_words \
		--test hostile_together -- --nocapture --test-threads 1

tools-check: build ## Benches, simulators, the demo and the fuzz targets, each as short as can be
	$(CARGO) bench --profile dev -p shoal-peer --bench bulk -- 8
	$(CARGO) bench --profile dev -p shoal-testkit --bench ring -- 0.1
	$(TARGET)/debug/shoal-sim -n 5 --size 2MB
	$(TARGET)/debug/shoal-sim ring --tables keys
	$(TARGET)/debug/shoal-demo --size 8MB --peers 3
	fuzz/run 1

chaos: build ## Ring and swarm under random faults and attacks (MINUTES=10, SEED=7; root: cut networks, full disks)
	@$(TARGET)/debug/shoal-chaos --minutes $(or $(MINUTES),1) $(if $(SEED),--seed $(SEED)) $(ARGS)

check: fmt-check clippy lint test ## What CI runs: formatting, clippy, buf lint, all tests

fmt: ## Format the code
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

lint: ## buf lint of the .proto files (needs npx, installs nothing)
	@command -v npx > /dev/null || { echo 'make lint needs npx: apt-get install npm' >&2; exit 1; }
	$(BUF) lint

deny: ## Licences, bans and sources of all dependencies (needs cargo-deny)
	@$(CARGO) deny --version > /dev/null 2>&1 || \
		{ echo 'make deny needs cargo-deny: cargo install --locked cargo-deny' >&2; exit 1; }
	$(CARGO) deny check licenses bans sources

sim: ## Simulated swarm (SEED=1, ARGS='-n 100 --us 100')
	$(CARGO) run --quiet --release -p shoal-testkit --bin shoal-sim -- --seed $(or $(SEED),1) $(ARGS)

sim-ring: ## Simulated rings, beside the Chord paper (SEED=1, ARGS='--tables hops')
	$(CARGO) run --quiet --release -p shoal-testkit --bin shoal-sim -- ring --seed $(or $(SEED),1) $(ARGS)

fuzz: ## Fuzz every parser and brain, each for SECONDS=60 (needs a C++ compiler; TARGETS='manifest swarm')
	@command -v c++ > /dev/null || { echo 'make fuzz needs a C++ compiler: apt-get install g++' >&2; exit 1; }
	@fuzz/run '$(or $(SECONDS),60)' $(TARGETS)

bench: ## Data plane on this machine, beside a plain copy over TCP
	$(CARGO) bench -p shoal-peer --bench bulk -- $(ARGS)

bench-ring: ## Calls a second of a ring of five nodes, beside a bare echo
	$(CARGO) build --release --bin shoal-dht-node
	$(CARGO) bench -p shoal-testkit --bench ring -- $(ARGS)

lab: ## Shaped links in network namespaces (root; ARGS='-n 30' or --table)
	$(CARGO) build --release --bin shoal --bin shoal-tracker --bin shoal-lab
	@$(SUDO) $(TARGET)/release/shoal-lab $(ARGS)

lab-check: build ## Three peers in the lab, to see that it works (root)
	@$(SUDO) $(TARGET)/debug/shoal-lab $(SMALL_LAB)

images: ## Container images shoal/NAME:dev (IN_CONTAINER=1 compiles in a container)
	@deploy/images

cluster-up: ## Cluster in containers, with Compose (PEERS=50, OBSERVABILITY=1)
	@deploy/cluster up

cluster-scale: ## Other number of peers there (PEERS=20)
	@deploy/cluster scale '$(PEERS)'

cluster-status: ## Its containers, swarms, and ring in order
	@deploy/cluster status

cluster-publish: ## Hand a file or directory to one of its peers (FILE=...)
	@deploy/cluster publish '$(FILE)'

cluster-get: ## Fetch a content out of it (ID=..., TO=directory)
	@deploy/cluster get '$(ID)' '$(TO)'

load: ## Load on its services (SCENARIO=announce|lookup|kv|swarm|mixed, ID=..., ARGS='--rate 1000')
	@ID='$(ID)' deploy/cluster load '$(SCENARIO)' $(ARGS)

cluster-logs: ## Follow its logs (SERVICES='peer tracker-1')
	@deploy/cluster logs $(SERVICES)

cluster-down: ## Take it down; volumes of ring nodes stay (VOLUMES=1 removes them)
	@deploy/cluster down

cluster-test: images ## Everything that may happen to such a cluster (needs grpcurl)
	$(CARGO) build --bin shoal-cluster-test
	@$(TARGET)/debug/shoal-cluster-test $(ARGS)

chart-test: ## Chart: lint, renders, schemas of Kubernetes' API (Python 3, and helm or Go to install it)
	@helm/tests/run $(ARGS)

kube-test: ## Chart on the cluster that kubectl points at (helm; images on its nodes; ARGS=--help)
	$(CARGO) build --bin shoal --bin shoal-kube-test
	@PATH="$$PATH:$(TARGET)/chart-test" $(TARGET)/debug/shoal-kube-test $(ARGS)

observability-check: ## Configuration and rules of the cluster's Prometheus (needs promtool)
	@command -v promtool > /dev/null || { echo 'promtool is missing:' \
		'go install github.com/prometheus/prometheus/cmd/promtool@latest, or apt-get install prometheus' >&2; exit 1; }
	promtool check config deploy/observability/prometheus.yaml

build:
	$(CARGO) build --workspace --bins

clean: ## Remove what was built
	$(CARGO) clean
