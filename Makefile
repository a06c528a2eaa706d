# `make demo` and `make test` need python3 (3.11 or later) and make; everything else they set up
# themselves, in .venv, again when pyproject.toml or uv.lock has changed. With uv on the PATH the
# versions are those of uv.lock; without it, or where it cannot have these, pip takes the newest
# that pyproject.toml allows.

PYTHON ?= python3
ARGS ?=

# One more than there are cores: many tests wait for processes that they started.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))

BIN := .venv/bin
OFFLINE := *** .venv could not be set up; the reason stands above. It needs python3 3.11 or later \
with the module venv, and once the network or a mirror (PIP_INDEX_URL, UV_DEFAULT_INDEX). To \
install without make: pip install .

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint bench prove figures clean

help:
	@echo "make demo     a plan over the files of this folder, killed twice in the middle, resumed"
	@echo "make test     the tests                         (ARGS=... goes to pytest)"
	@echo "make slow     tests with real processes and servers"
	@echo "make lint     ruff, and mypy --strict"
	@echo "make bench    the measurements                  (ARGS=--quick for a minute's worth)"
	@echo "make prove    carstore prove, and long tests    (ARGS='--scale short' for less)"
	@echo "make figures  the proofs at length, and what they counted into the documentation"
	@echo "make clean    remove .venv and what tools leave behind"

demo: .venv/.with-nothing
	@$(BIN)/carstore demo $(ARGS)

test: .venv/.with-test
	@$(BIN)/python -m pytest -m "not prove and not slow" --numprocesses $(WORKERS) --dist worksteal $(ARGS)

slow: .venv/.with-test
	@$(BIN)/python -m pytest -m "slow and not prove" --numprocesses $(WORKERS) --dist worksteal $(ARGS)

lint: .venv/.with-test-lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: .venv/.with-bench
	@$(BIN)/python -m benchmarks $(ARGS)

prove: .venv/.with-test
	@$(BIN)/carstore prove $(ARGS)
	@$(BIN)/python -m pytest -m prove

figures: .venv/.with-test
	@$(BIN)/carstore prove --scale long --kills 1000 --report docs/proofs.md $(ARGS)
	@$(BIN)/python -m tests.proofs.figures

clean:
	rm -rf .venv build dist carstore-demo .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# The name of the stamp says which extras of pyproject.toml are installed.
.venv/.with-%: pyproject.toml uv.lock
	@echo "setting up .venv ..." >&2
	@extras=$$(echo '$*' | sed 's/nothing//; s/-/,/g'); \
	flags=$$(echo "$$extras" | sed 's/[a-z][a-z]*/--extra &/g; s/,/ /g'); \
	{ command -v uv > /dev/null && uv sync --quiet --frozen --inexact $$flags; } || { \
		$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else sys.version)' && \
		{ $(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv; } && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".$${extras:+[$$extras]}"; \
	} || { echo '$(OFFLINE)' >&2; exit 1; }
	@touch $@
