# Two commands do everything: `make run` (the guided tour) and `make test` (the whole gate).
PYTHON := .venv/bin/python
BIN := .venv/bin
AGAIN := --reruns 1 # a failed test may prove itself once more; tests/conftest.py bounds how many
# Bytecode is kept, whatever the caller's environment says: a tour or a test starts dozens of
# processes, and each would compile all of its modules again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help run fresh vm lab lab-down compile test test-kernel test-rest test-alone lint unit unit-fuzz netns interop fuzz battery chaos e2e compiled \
	bench bench-scale bench-check \
	format stubs manifests image image-check demo-cluster check clean root ready ready-unit ready-dev ready-bench

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1|/' | \
		while IFS='|' read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done

root:
	@[ "$$(id -u)" = 0 ] || { echo "make: eBPF and network namespaces need root" >&2; exit 2; }

ready:
	@.ci/bootstrap run

ready-unit:
	@.ci/bootstrap unit

ready-dev:
	@.ci/bootstrap dev

ready-bench:
	@.ci/bootstrap bench

run: root ready ## bring up two nodes with real servers, walk through the mesh, check every claim, tear down
	@$(PYTHON) -m agent.lab.tour

lab: root ready ## bring the same lab up and leave it running to play with
	@$(BIN)/tulle lab up agent/lab/shop

lab-down: root ready ## take the lab down
	@$(BIN)/tulle lab down

compile: ready-dev ## optional: compile the ztunnel's hot modules (same sources, less CPU)
	@$(PYTHON) .ci/compile.py

test: root ready-dev ## everything: lint, unit, kernel, interop and fuzz tests; the ztunnel compiled too
	@$(PYTHON) .ci/beside.py "$(MAKE) --no-print-directory test-kernel" "$(MAKE) --no-print-directory test-rest"
	@$(MAKE) --no-print-directory test-alone

# Two cores: the kernel's tests wait much, what takes CPU time alone steps back for them.
test-kernel:
	@TULLE_COMPILED=no $(PYTHON) -m pytest $(AGAIN) -m "not alone" tests/netns

test-rest:
	@nice $(MAKE) --no-print-directory lint compile unit-fuzz
	@TULLE_COMPILED=no $(PYTHON) -m pytest $(AGAIN) -m "not alone" tests/interop
	@TULLE_COMPILED=yes $(PYTHON) -m pytest $(AGAIN) -m "not alone" $(COMPILED_TESTS)

test-alone: # nothing runs beside these: they measure
	@TULLE_COMPILED=no $(PYTHON) -m pytest $(AGAIN) -m alone tests/interop tests/netns
	@TULLE_COMPILED=yes $(PYTHON) -m pytest $(AGAIN) -m alone $(COMPILED_TESTS)

unit-fuzz: ready-dev
	@TULLE_COMPILED=no $(PYTHON) -m pytest tests/unit tests/fuzz

# The battery once is enough, and the control plane is not compiled.
COMPILED_TESTS := tests/unit/ztunnel tests/interop \
	--ignore tests/interop/test_hostile_battery.py \
	--ignore-glob 'tests/interop/test_cni_*' --ignore-glob 'tests/interop/test_kube_*' \
	--ignore-glob 'tests/interop/test_control_*'

compiled: compile ## the ztunnel's unit and interop tests on compiled modules
	@TULLE_COMPILED=yes $(PYTHON) -m pytest $(AGAIN) $(COMPILED_TESTS)

fresh: root ## `make run` and the kernel tests on fresh hosts (FRESH="jammy noble": Ubuntu; "--quick trixie": a part)
	@.ci/fresh $(FRESH)

vm: root ## the same on a distribution's own kernel, in QEMU: make vm VM=jammy (or VM="jammy make run")
	@.ci/vm $(VM)

lint: ready-unit ## formatting, style, types, import contracts, words, generated stubs
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(PYTHON) .ci/words.py
	@$(PYTHON) -m control.wire.generate --check

unit: ready-unit ## the fast tests: no root, no sockets
	@$(PYTHON) -m pytest tests/unit

netns: root ready-dev ## the tests on the real kernel
	@$(PYTHON) -m pytest tests/netns

interop: ready-dev ## the tests with foreign peers (Envoy, h2)
	@$(PYTHON) -m pytest tests/interop

fuzz: ready-dev ## the policy fuzzer: 10^7 cases of a random seed; options: make fuzz SEED=1 CASES=1000000
	@$(PYTHON) -m tests.fuzz $(if $(SEED),--seed $(SEED)) $(if $(CASES),--cases $(CASES)) \
		$(if $(NUMBER),--number $(NUMBER)) $(if $(BETWEEN),--between)

e2e: ready-dev ## a real cluster that has the image: make e2e KUBECONFIG=~/.kube/config E2E="--image NAME:TAG"
	@$(PYTHON) -m tests.e2e --kubeconfig "$(KUBECONFIG)" $(E2E)

battery: root ready-dev ## hostile peers beside an honest one, with the bounds that are meant (the gate's are wider)
	@TULLE_BATTERY=strict $(PYTHON) -m pytest tests/interop/test_hostile_battery.py

chaos: root ready-dev ## faults of processes, links and disks beside judged traffic; options: make chaos SEED=7 SECONDS=30
	@$(PYTHON) -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

# With COMPILED=0 the benchmark runs the sources as they are.
COMPILED ?= 1
bench: export TULLE_COMPILED = $(if $(filter 0,$(COMPILED)),no,yes)
bench: root ready-bench $(if $(filter 0,$(COMPILED)),,compile) ## Tulle beside no mesh, Envoy and HAProxy; options: make bench BENCH="--quick"
	@$(PYTHON) -m tests.bench $(BENCH)

bench-scale: ready-dev ## how the control plane grows with pods, nodes and changes; options: make bench-scale SCALE="--full"
	@$(PYTHON) -m tests.bench.scale $(SCALE)

bench-check: ready-bench ## compare the newest benchmark with the goals
	@$(PYTHON) -m tests.bench check

format: ready-unit ## rewrite the sources in the house's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

stubs: ready-unit ## regenerate the protobuf stubs
	@$(PYTHON) -m control.wire.generate

manifests: ready-dev ## write what is made from the chart: CRDs, boards, its README, the kustomize tree
	@$(PYTHON) -m daemonset.tools

image: root ready-dev ## build the container image with buildah (BASE=mmdebstrap where no registry is reached)
	@daemonset/image/build

image-check: root ## run the image: size, user, read-only root, programs without a compiler, SBOM
	@daemonset/image/check

demo-cluster: ## print the commands for kind, k3d and minikube on a laptop
	@sed -n '/^## On a laptop/,/^`make demo/p' docs/kubernetes.md | sed -n 's/^    //p'

check: ready ## can this host run the mesh?
	@$(BIN)/tulle check --pre

clean: ## remove what the build made (not a running lab)
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis build ztunnel/_compiled *.egg-info
