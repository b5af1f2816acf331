# make demo   sets up, then copies a real file tree between two processes, verifying every pair
# make test   sets up, then lint, types and all tests
# make quick   the same without the slow tests, with a quarter of the examples: less than a minute, after each change
# make test-pure   the tests that depend on the kernel, on the pure one, which runs where there is no Rust toolchain
# make soak   by hand, for hours: thousands of seeds, hundreds of kills, and examples that no run has tried yet
# make coverage   all tests, with the lines that none of them runs
# make scale   measures stores of up to ten million pairs: a quarter of an hour, five gigabytes of disk
# make simulate SEEDS=1000   whole systems on a virtual clock, one for each seed; SEED=17 runs one, with its log
.PHONY: demo quick test test-pure soak coverage lint types bench scale simulate format setup clean
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
JOBS ?= 2
SEEDS ?= 1000
# Only merkledb uses the kernel, and the simulation runs whole systems on it. All other packages see merkledb alone, whose
# answers these tests hold to be the same on both kernels. What a seed does is the same, too, as one of them shows: the
# simulations of single kinds of failure and of planted bugs need not be repeated.
KERNEL_TESTS := tests/merkledb tests/simulation
KERNEL_SOURCES := $(wildcard kernel/*.toml kernel/Cargo.lock kernel/src/*.rs)

# Tests start some hundred processes, which would compile every module anew where Python is told not to keep them.
unexport PYTHONDONTWRITEBYTECODE

setup: $(READY)

$(READY): pyproject.toml $(KERNEL_SOURCES)
	$(PYTHON) -c 'import sys; sys.exit("merklesync needs Python 3.11 or newer; run: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@if command -v cargo >/dev/null; then \
	    echo "building the compiled kernel, which takes a minute or two"; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check ./kernel; \
	else \
	    echo "no Rust toolchain (cargo) found: the pure kernel is used, which does the same, but slower"; \
	fi
	touch $(READY)

demo: $(READY)
	$(BIN)/merklesync demo

test: lint types
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

quick: lint types
	MERKLESYNC_TESTS=quick $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m 'not slow'

test-pure: $(READY)
	MERKLESYNC_KERNEL=pure $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m 'not either_kernel' $(KERNEL_TESTS)

soak: $(READY)
	MERKLESYNC_TESTS=soak $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -o faulthandler_timeout=0

coverage: $(READY)
	rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --cov --cov-report=term

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if command -v cargo-fmt >/dev/null && command -v cargo-clippy >/dev/null; then \
	    cd kernel && cargo fmt --check && cargo clippy --quiet --release --locked -- -D warnings; \
	fi

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m bench.database
	$(BIN)/python -m bench.commits
	$(BIN)/python -m bench.sync
	$(BIN)/python -m bench.history
	$(BIN)/python -m bench.follow

scale: $(READY)
	$(BIN)/python -m bench.scale

simulate: $(READY)
	$(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --jobs $(JOBS))

clean:
	rm -rf kernel/target .venv .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info build
