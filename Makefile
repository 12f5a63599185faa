# The commands of the desk and of CI. README.md says what a machine must have before.
SHELL  := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
# One process per test where nextest is installed; the standard runner serves as well, and has no time-outs of its own.
RUNNER := $(if $(shell command -v cargo-nextest 2>/dev/null),cargo nextest run --no-fail-fast,timeout 20m cargo test --no-fail-fast)
DEMO   := -p migshare-agent -p migshare-nvml-sim -p migshare-spank-shim -p migshare-gres -p migshare-capi -p migshare-storage -p migshare-harness

.PHONY: install build-release demo test models suites guest check build needs needs-of-demo bench-agent bench-storage bench-collectives

demo: needs-of-demo  ## a two-node Slurm cluster with simulated GPUs, and what migshare does on it
	cargo build $(DEMO) --lib --bins --example migshare-demo
	$(TARGET)/debug/examples/migshare-demo

test: build models   ## all storeys of tests, the real Slurm cluster included
	cargo test --workspace --doc --quiet
	$(RUNNER) --workspace

install: build-release  ## what was built, as a package would: DESTDIR, PREFIX, SLURM_PLUGIN_DIR, SYSCONFDIR
	contrib/scripts/install.sh $(TARGET)/release

build-release:
	cargo build --release --workspace --lib --bins

models: needs        ## loom: the collectives' synchronisation in all orders that the memory model allows; four minutes with its build
	CARGO_TARGET_DIR=$(TARGET)/loom RUSTFLAGS="--cfg loom" cargo test --quiet -p migshare-collectives --release --test 'loom*'

suites:              ## pjdfstest, fsx (140,000 operations) and fio on mounts of the storage sidecar: two minutes, as root
	storage/suites/run.sh

guest: needs         ## the storage sidecar over real NVMe/TCP in a QEMU guest, with power cuts: two minutes, more on a busy machine, as root
	contrib/scripts/install-needs.sh guest $(TARGET)
	cargo test -p migshare-storage --test guest -- --ignored --nocapture --test-threads 1

check: needs         ## format, lints, documentation, licences and advisories, rules about the code
	contrib/scripts/check.sh $(TARGET)

bench-agent:         ## the node agent: leases over fsync, placement, 1,000 clients, idleness; QUICK=1 takes five minutes
	cargo bench --quiet -p migshare-agent --bench agent

bench-storage:       ## the storage sidecar against bare mounts and published policies; QUICK=1 takes fifteen minutes
	cargo bench --quiet -p migshare-storage --bench storage

bench-collectives:   ## against Open MPI, MPICH and Gloo, with plots in out/bench-collectives; QUICK=1 takes ten minutes
	collectives/bench/run.sh

build: needs         ## everything, tests included
	cargo build --workspace --all-targets

needs:               ## what has to be installed, if it is not there yet
	@contrib/scripts/install-needs.sh all $(TARGET)

needs-of-demo:
	@contrib/scripts/install-needs.sh demo $(TARGET)
