# One target for each thing a person wants. `make help` lists them.
#
# Needed beforehand: Go (the release that go.mod names, or a newer one), git, make; everything else is fetched by name from the
# system's packages (make deps) and from Go modules at pinned versions (make parts).

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
export GOFLAGS := -buildvcs=false

##@ use

.PHONY: run
run: export MAKE_TARGET = run
run: deps-run parts-run build ## start crid, run a demo pod on it and show it
	@hack/run.sh up

.PHONY: stop
stop: export MAKE_TARGET = stop
stop: ## end crid; its pods go on
	@hack/run.sh stop

.PHONY: reset
reset: export MAKE_TARGET = reset
reset: ## end crid and remove its pods, images, network and files
	@hack/run.sh reset

.PHONY: kubelet
kubelet: deps parts-run build images kube-parts-kubelet ## a kubelet on crid runs static pods, shows and removes them
	@go run ./hack/kube kubelet

.PHONY: cluster
cluster: deps parts-run build images kube-parts ## a Kubernetes cluster of one node on crid, left running
	@go run ./hack/kube up

.PHONY: cluster-status cluster-stop cluster-reset
cluster-status: ## what runs of it
	@go run ./hack/kube status
cluster-stop: ## end its servers; pods go on
	@go run ./hack/kube stop
cluster-reset: ## remove it, its pods and files
	@go run ./hack/kube reset

##@ build

.PHONY: build
build: ## bin/crid
	@mkdir -p bin
	@CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.buildVersion=$(VERSION)" -o bin/crid ./cmd/crid
	@echo "bin/crid $(VERSION)"

# crid with the moments at which a test can have it die (package failpoint). For tests only.
.PHONY: failpoints
failpoints:
	@mkdir -p bin
	@CGO_ENABLED=0 go build -trimpath -tags failpoints -ldflags "-s -w -X main.buildVersion=$(VERSION)-failpoints" -o bin/crid-failpoints ./cmd/crid

.PHONY: parts
parts: parts-run ## pinned run-time parts and tools: runc, shim, CNI plugins, crictl; for tests critest and an old shim
	@hack/parts.sh critest old-shim

.PHONY: parts-run
parts-run:
	@hack/parts.sh runc shim cni crictl

.PHONY: kube-parts kube-parts-kubelet
kube-parts: ## Kubernetes' own programs, at pinned versions, into bin/kube
	@hack/kube/build.sh
kube-parts-kubelet:
	@hack/kube/build.sh kubelet

.PHONY: deps
deps: ## install missing system packages by name
	@hack/deps.sh run test

.PHONY: deps-run
deps-run:
	@hack/deps.sh run test

# The two programs that crid carries in itself. They are part of the source, so that building crid needs no C compiler; this makes
# them anew, for both architectures (gcc and gcc-aarch64-linux-gnu).
FREESTANDING := -static -nostdlib -nostartfiles -ffreestanding -fno-builtin -fno-tree-loop-distribute-patterns -fno-stack-protector \
	-fno-asynchronous-unwind-tables -fno-strict-aliasing -fno-pic -no-pie -Os -Wall -Wextra -Werror \
	-Wl,--build-id=none,-z,noseparate-code,-z,noexecstack,-z,norelro -s

.PHONY: holder
holder: ## container/holder's program, from its C source
	@gcc $(FREESTANDING) -o container/holder/holder_amd64 container/holder/src/holder.c
	@aarch64-linux-gnu-gcc $(FREESTANDING) -mgeneral-regs-only -mno-outline-atomics -o container/holder/holder_arm64 container/holder/src/holder.c

.PHONY: pause
pause: ## sandbox/pause's program, from its C source
	@gcc $(FREESTANDING) -n -fcf-protection=none -o sandbox/pause/pause_amd64 sandbox/pause/src/pause.c
	@aarch64-linux-gnu-gcc $(FREESTANDING) -n -o sandbox/pause/pause_arm64 sandbox/pause/src/pause.c

.PHONY: images
images: ## compile the programs of the test images
	@go run ./e2e/images build

##@ prove

.PHONY: test
test: deps parts build failpoints images ## everything: unit, model, e2e, critest
	@go run ./hack/lanes

.PHONY: unit
unit: ## every package by itself
	@go run ./hack/lanes unit

.PHONY: model
model: ## the law walked exhaustively, and simulations
	@go run ./hack/lanes model

.PHONY: sim-long
sim-long: ## a million simulated lives of the whole shell, or N; on all processors
	@go test ./sandbox/sim -run 'TestSeeds$$' -count=1 -timeout 0 -v -args -seeds=$(or $(N),1000000) -from=$(or $(FROM),1)

.PHONY: mutants
mutants: ## known bugs put back one by one: the simulation has to catch each (RUN=regexp for some)
	@CRID_MUTANTS='$(or $(RUN),1)' go test ./sandbox/sim -run 'TestMutants$$' -count=1 -timeout 0 -v

.PHONY: race
race: ## unit and model with the race detector
	@go run ./hack/lanes -race unit model

.PHONY: fuzz
fuzz: ## each fuzz test for FUZZTIME (20s)
	@hack/fuzz.sh

.PHONY: e2e
e2e: deps parts-run build images ## the real daemon, with a census of leaks (RUN=regexp for some)
	@go run ./hack/lanes -run "$(RUN)" e2e

.PHONY: faults
faults: deps parts build failpoints images ## every crash point and fault, in full (RUN=regexp for some; make test runs a tenth)
	@CRID_FAULTS=all go run ./hack/lanes -run "$(RUN)" faults

# Knobs of these go to them as they are: DURATION=2h SEED=7 PACE=4s, N=5000.
ENDURE = go test -tags endurance -v -count=1 -timeout 0

.PHONY: soak
soak: deps parts-run build images ## a kubelet's loop under seeded faults (DURATION=2h SEED=n)
	@$(ENDURE) ./e2e/soak

.PHONY: churn
churn: deps parts-run build images ## pods come and go, and what they leave in memory (N=5000)
	@$(ENDURE) ./e2e/churn

.PHONY: histories
histories: deps parts-run build images ## concurrent calls under faults, held against a model by Porcupine (DURATION=10m SEED=n)
	@$(ENDURE) ./e2e/histories

.PHONY: critest
critest: deps parts build images ## the CRI validation suite in full (FOCUS=regexp for some, SEED=n)
	@go run ./e2e/critest -seed $(or $(SEED),1) $(if $(FOCUS),-focus '$(FOCUS)')

.PHONY: lint
lint: ## go vet and golangci-lint
	@go vet -tags e2e ./...
	@hack/parts.sh golangci-lint
	@bin/golangci-lint run ./...

.PHONY: bench
bench: deps parts-run build images ## crid and containerd side by side (BENCH='-quick')
	@hack/parts.sh containerd
	@go run ./hack/bench $(BENCH)

.PHONY: compare-faults
compare-faults: deps parts-run build images ## the same faults under crid and containerd, as a table (COMPARE='-only "shim|runc"')
	@hack/parts.sh containerd
	@go run ./hack/compare $(COMPARE)

.PHONY: test-v2
test-v2: deps parts build images ## the e2e core in a guest with cgroup v2, cgroupfs and systemd drivers (slow)
	@hack/deps.sh vm
	@hack/vm/test.sh

.PHONY: test-kubelet
test-kubelet: deps parts-run build images kube-parts-kubelet ## a real kubelet with static pods
	@go test -tags e2e -count=1 -v -timeout 20m -run '^TestKubelet$$' ./e2e/kube

.PHONY: test-cluster
test-cluster: deps parts-run build images kube-parts ## a real cluster of one node through kubectl, crid killed at random (RUN=regexp for some)
	@go test -tags e2e -count=1 -v -parallel 6 -timeout 60m -run '^TestCluster$(if $(RUN),/^.*/$(RUN))' ./e2e/kube

.PHONY: drill
drill: deps parts-run build images kube-parts ## 20 upgrades and a downgrade of crid under a Deployment with a client
	@go test -tags e2e -count=1 -v -timeout 30m -run '^TestDrill$$' ./e2e/kube

.PHONY: test-nodeconformance
test-nodeconformance: deps parts build images ## the NodeConformance part of Kubernetes' node suite (RUNTIME=containerd for the peer, FOCUS=regexp for some)
	@hack/kube/build.sh kubelet agnhost nnp e2e_node.test ginkgo
	@$(if $(filter containerd,$(RUNTIME)),hack/parts.sh containerd,true)
	@go run ./hack/kube/conformance -runtime $(or $(RUNTIME),crid) $(if $(FOCUS),-focus '$(FOCUS)')

.PHONY: test-multinode
test-multinode: deps parts build images ## three nodes, each a kubelet and a crid: pods talk, a node is cut off and comes back
	@hack/kube/build.sh
	@go test -tags kube -count=1 -timeout 20m -v ./e2e/kube/multinode

.PHONY: test-kubelet-v2
test-kubelet-v2: deps parts build images kube-parts-kubelet ## a real kubelet in the guest with cgroup v2 and systemd, crid as its service (slow)
	@hack/deps.sh vm
	@hack/kube/guest.sh

##@ other

.PHONY: clean
clean: ## remove what was built (never a running demo: make reset)
	@rm -rf bin .build .results

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
