# Installs, checks and tries batchord in a virtual environment of this folder. Needs Python 3.11 or newer, and nothing else.
# Plain GNU make 3.81 and POSIX sh, so that a stock macOS runs it too.

# The first of these that fits makes the environment; `make PYTHON=/path/to/python3 demo` chooses another.
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11
# Passed on to the command that a target runs: `make test ARGS='-k seal'`, `make lock ARGS=--upgrade`.
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Stamps, written last: an install is done again when it was interrupted, or is older than its pins.
SERVER := $(VENV)/.server-installed
DEV := $(VENV)/.dev-installed
BENCH := $(VENV)/.bench-installed
UNFINISHED := $(VENV)/.installing

.PHONY: help demo example test chaos check bench lock clean
.NOTPARALLEL:

help: ## Show this text
	@echo "batchord: OpenAI's Batch API for any LLM endpoint. Start with 'make demo'."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Each target first installs what it needs into $(VENV), once. No provider key is needed for any of them."

demo: $(SERVER) ## Run a batch of 1,000 requests against a simulated provider
	@rm -rf demo-output && mkdir demo-output
	$(BIN)/batchord run examples/demo/requests.jsonl -o demo-output/out.jsonl --providers examples/demo/providers.toml $(ARGS)

example: $(DEV) ## Embed the docs of Python's standard library with a local model, and search them
	$(BIN)/python -m examples.stdlib_search $(ARGS)

test: $(DEV) ## Run the tests (some of them: make test ARGS='-k seal')
	$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal $(ARGS)

chaos: $(DEV) ## Kill, stop and cut everything, again and again, and look for what is lost
	BATCHORD_CHAOS=long $(BIN)/python -m pytest tests/chaos --numprocesses=0 -s $(ARGS)

check: $(DEV) ## Check format, lint, types and the layers, in seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(BENCH) ## Measure it here, beside other tools
	$(BIN)/python -m tests.benchmarks $(ARGS)

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' pyproject.toml

# The later locks have the versions of the first, so that all environments run the same.
lock: $(BIN)/uv ## Pin the dependencies of pyproject.toml (to their newest: make lock ARGS=--upgrade)
	$(COMPILE) --extra server --group dev --output-file requirements-dev.lock $(ARGS)
	$(COMPILE) --extra server --group build --constraint requirements-dev.lock --output-file requirements.lock $(ARGS)
	$(COMPILE) --extra server --group bench --constraint requirements-dev.lock --output-file requirements-bench.lock $(ARGS)

clean: ## Remove all that the other targets made
	rm -rf $(VENV) demo-output example-output bench-output build dist
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(SERVER): requirements.lock pyproject.toml
	@$(venv)
	@$(call install,requirements.lock)
	@touch $@

$(DEV): requirements-dev.lock pyproject.toml
	@$(venv)
	@$(call install,requirements-dev.lock)
	@touch $(SERVER) $@

$(BENCH): requirements-bench.lock pyproject.toml
	@$(venv)
	@$(call install,requirements-bench.lock)
	@touch $(SERVER) $(DEV) $@

$(BIN)/uv:
	@$(venv)
	@$(pip) uv

# An environment in which an install was interrupted, or that has lost its Python, is made again.
define venv
test ! -e $(UNFINISHED) && $(BIN)/python -m pip --version >/dev/null 2>&1 && exit 0; \
for python in $(PYTHON); do \
	if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		echo "Making $(VENV) with $$python ..."; \
		exec "$$python" -m venv --clear $(VENV); \
	fi; \
done; \
echo "batchord needs Python 3.11 or newer with its venv module; looked for: $(PYTHON)." >&2; \
echo "Install one (on Debian and Ubuntu also the package python3-venv), or name it: make PYTHON=/path/to/python3 ..." >&2; \
exit 1
endef

pip = $(BIN)/python -m pip --disable-pip-version-check install --quiet

define install
echo "Installing the packages of $(1) into $(VENV); the first time takes about a minute ..."; \
touch $(UNFINISHED) && \
$(pip) --require-hashes -r $(1) && \
$(pip) --no-deps --no-build-isolation --no-index -e . && \
rm $(UNFINISHED)
endef
