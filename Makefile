# Two commands for a newcomer: make demo, make test. Both install what they need into .venv first, once.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
# Two processes, one thread each: as many as the smallest machine has cores, and their models fit into its memory.
# One that dies ends the run and is named; where it is replaced, xdist waits forever for the tests of its file.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

CPP := runtime/cpp
# What Python makes of the C++ tests' inputs; made again when the Python code changes.
CPP_DATA := out/cpp/data
CPP_SOURCES := $(shell find $(CPP)/tests runtime/vtr_runtime vtr_export -name '*.py' 2>/dev/null)
# A sanitizer's build takes five times the memory.
CPP_JOBS ?= 2
CPP_ONNXRUNTIME = -DONNXRUNTIME_WHEEL="$$(echo $(CURDIR)/.venv/lib/python3*/site-packages/onnxruntime)"
# Of each fuzz target.
SECONDS ?= 10

.PHONY: help install demo test test-python cpp-here test-long test-annotations lint clean system-deps cpp cpp-fuzz cpp-install

help:
	@echo "make demo       train, export, check and search on generated clips (out/demo/)"
	@echo "make test       ruff, mypy and every test; C++ too where its packages are"
	@echo "make system-deps  the Debian packages that C++ needs"
	@echo "make cpp        build the C++ runtime and run its tests; cpp-asan, cpp-tsan: with sanitizers"
	@echo "make cpp-fuzz   its fuzz targets, SECONDS=10 each"
	@echo "make cpp-install  it installed, packaged and used by other projects"
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

test: lint cpp-here test-python

# C++ where its compiler and libraries are; where they are wanted, VTR_REQUIRE_CPP=1, their absence is an error.
cpp-here: $(STAMP)
	@if missing=$$($(CPP)/scripts/system_deps.sh --check); then $(MAKE) --no-print-directory cpp; \
	elif [ -n "$(VTR_REQUIRE_CPP)" ]; then echo "missing: $$missing; run make system-deps"; exit 1; \
	else echo "C++: NOT RUN, missing: $$missing. To run it: make system-deps cpp"; fi

test-python: $(STAMP)
	$(PYTEST) -m "not long and not gpu and not annotations"

system-deps:
	$(CPP)/scripts/system_deps.sh

$(CPP_DATA)/.made: $(STAMP) $(CPP_SOURCES)
	$(CPP)/scripts/make_test_data.sh $(BIN)/python $(CPP_DATA)
	@touch $@

cpp: cpp-release

cpp-%: $(CPP_DATA)/.made
	cd $(CPP) && cmake --preset $* $(CPP_ONNXRUNTIME) > /dev/null
	cd $(CPP) && cmake --build --preset $* -j $(CPP_JOBS)
	cd $(CPP) && VTR_TEST_DATA=$(abspath $(CPP_DATA)) ctest --preset $* -j $(CPP_JOBS)

cpp-fuzz: $(STAMP)
	CPP_JOBS=$(CPP_JOBS) $(CPP)/scripts/run_fuzzers.sh $(SECONDS) $(CPP_ONNXRUNTIME)

cpp-install: cpp-release
	CPP_JOBS=$(CPP_JOBS) $(CPP)/scripts/check_install.sh out/cpp/release $(CPP_DATA)/model/bundle \
	  $(CPP_DATA)/model/clips/decord_video_180.mov out/cpp/install

test-long: $(STAMP)
	$(PYTEST) -m long
	VTR_TEST_REQUESTS=1000 $(MAKE) cpp-tsan
	VTR_TEST_TEXTS=100000 $(MAKE) cpp-release
	$(MAKE) cpp-fuzz SECONDS=600

test-annotations: $(STAMP)
	@test -n "$(VTR_ANNOTATIONS)" || { echo "set VTR_ANNOTATIONS to the annotation files"; exit 2; }
	$(PYTEST) -m annotations

clean:
	rm -rf out .pytest_cache .mypy_cache .ruff_cache
