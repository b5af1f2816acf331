# make demo   sets up, then copies a real file tree between two processes, verifying every pair
# make test   sets up, then lint, types and all tests
# make test-pure   all tests on the pure kernel, which runs where there is no Rust toolchain
# make scale   measures stores of up to ten million pairs: a quarter of an hour, five gigabytes of disk
# make simulate SEEDS=1000   whole systems on a virtual clock, one for each seed; SEED=17 runs one, with its log
.PHONY: demo test test-pure lint types bench scale simulate format setup clean
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
JOBS ?= 2
SEEDS ?= 1000
KERNEL_SOURCES := $(wildcard kernel/*.toml kernel/Cargo.lock kernel/src/*.rs)

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
	rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -n $(JOBS) --cov --cov-report=term

test-pure: $(READY)
	MERKLESYNC_KERNEL=pure $(BIN)/python -m pytest -n $(JOBS)

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
