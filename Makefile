# Two commands for a newcomer: make demo, make test. Both install what they need into .venv first, once.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
# Two processes, one thread each: as many as the smallest machine has cores, and their models fit into its memory.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: help install demo test test-long test-annotations lint clean

help:
	@echo "make demo       train, export, check and search on generated clips (out/demo/)"
	@echo "make test       ruff, mypy and every test"
	@echo "make test-long  the tests that take minutes"
	@echo "make test-annotations  the readers on the real benchmarks' files in VTR_ANNOTATIONS (docs/data-sets.md)"
	@echo "make clean      remove out/ and caches"

install: $(STAMP)

$(STAMP): pyproject.toml runtime/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e 'runtime[cpu]' -e '.[dev]'
	@# pip compiles one file after the other; templates inside some packages are no Python and are passed over.
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	@touch $@

demo: $(STAMP)
	$(BIN)/python training/demo.py out/demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(PYTEST) -m "not long and not gpu and not annotations"

test-long: $(STAMP)
	$(PYTEST) -m long

test-annotations: $(STAMP)
	@test -n "$(VTR_ANNOTATIONS)" || { echo "set VTR_ANNOTATIONS to the annotation files"; exit 2; }
	$(PYTEST) -m annotations

clean:
	rm -rf out .pytest_cache .mypy_cache .ruff_cache
